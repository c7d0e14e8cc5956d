package linkage

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Plaintext is for a gateway on this machine, or a mesh that adds TLS.
func Plaintext() credentials.TransportCredentials { return insecure.NewCredentials() }

// TLS trusts the certificates in a PEM file and no others.
func TLS(caFile string) (credentials.TransportCredentials, error) {
	config, err := trusting(caFile)
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(config), nil
}

// MutualTLS is TLS with a certificate of the caller's own, by which the gateway knows it. The PEM files are read
// at every handshake, so that a renewed certificate needs no restart.
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
		return nil, errors.New("linkage: no certificate in " + caFile)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, nil
}
