package linkage

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Plaintext returns credentials for a gateway on this machine, or behind a mesh that adds TLS.
func Plaintext() credentials.TransportCredentials { return insecure.NewCredentials() }

// TLS returns credentials that trust only the certificates in a PEM file.
func TLS(caFile string) (credentials.TransportCredentials, error) {
	config, err := trusting(caFile)
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(config), nil
}

// MutualTLS returns TLS credentials with a client certificate, which identifies the caller to the gateway. Certificate
// and key are read from their PEM files at every handshake, so a renewed certificate needs no restart.
func MutualTLS(caFile, certFile, keyFile string) (credentials.TransportCredentials, error) {
	config, err := trusting(caFile)
	if err != nil {
		return nil, err
	}
	load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		certificate, err := tls.LoadX509KeyPair(certFile, keyFile)
		return &certificate, err
	}
	if _, err := load(nil); err != nil {
		return nil, err
	}
	config.GetClientCertificate = load
	return credentials.NewTLS(config), nil
}

func trusting(caFile string) (*tls.Config, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("linkage: " + caFile + " contains no PEM certificate")
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, nil
}
