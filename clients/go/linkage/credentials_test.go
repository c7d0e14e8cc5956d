package linkage_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"linkage.alipayhk/go/linkage"
	"linkage.alipayhk/go/linkagev1"
)

// authority is a CA that writes its certificates into a temporary directory.
type authority struct {
	t           *testing.T
	directory   string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, directory: t.TempDir()}
	template := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.certificate, a.key = a.write("ca", template)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.directory, name) }

func (a *authority) write(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	must := func(err error) {
		if err != nil {
			a.t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	for file, block := range map[string]*pem.Block{
		name + ".crt": {Type: "CERTIFICATE", Bytes: der},
		name + ".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		must(os.WriteFile(a.path(file), pem.EncodeToMemory(block), 0o600))
	}
	certificate, err := x509.ParseCertificate(der)
	must(err)
	return certificate, key
}

func TestMutualTLSAuthenticatesBothSides(t *testing.T) {
	ours, foreign := newAuthority(t), newAuthority(t)
	ours.write("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	ours.write("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	foreign.write("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})

	certificate, err := tls.LoadX509KeyPair(ours.path("server.crt"), ours.path("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	callers := x509.NewCertPool()
	callers.AddCert(ours.certificate)
	g := &gateway{answers: []func(context.Context) error{says(nil)}}
	target := serve(t, g, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientCAs: callers, ClientAuth: tls.RequireAndVerifyClientCert,
	})))

	mutual := func(ca, client *authority) (credentials.TransportCredentials, error) {
		return linkage.MutualTLS(ca.path("ca.crt"), client.path("client.crt"), client.path("client.key"))
	}
	rows := map[string]struct {
		make func() (credentials.TransportCredentials, error)
		want codes.Code
	}{
		"both certificates valid": {func() (credentials.TransportCredentials, error) { return mutual(ours, ours) }, codes.OK},
		"caller from another CA":  {func() (credentials.TransportCredentials, error) { return mutual(ours, foreign) }, codes.Unavailable},
		"gateway from another CA": {func() (credentials.TransportCredentials, error) { return mutual(foreign, ours) }, codes.Unavailable},
		"no client certificate":   {func() (credentials.TransportCredentials, error) { return linkage.TLS(ours.path("ca.crt")) }, codes.Unavailable},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			transport, err := row.make()
			if err != nil {
				t.Fatal(err)
			}
			client, err := linkage.New(target, transport)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, err = client.SyncLinkage(t.Context(), &linkagev1.SyncLinkageRequest{})
			got := codes.OK
			if err != nil {
				got = failedWith(t, err).Code
			}
			if got != row.want {
				t.Errorf("%v: %v", got, err)
			}
		})
	}
}

func TestUnusableFilesAreRejectedBeforeTheFirstCall(t *testing.T) {
	ours := newAuthority(t)
	if _, err := linkage.TLS(ours.path("none.crt")); err == nil {
		t.Error("a missing CA file was accepted")
	}
	if _, err := linkage.TLS(ours.path("ca.key")); err == nil {
		t.Error("a CA file without a certificate was accepted")
	}
	if _, err := linkage.MutualTLS(ours.path("ca.crt"), ours.path("ca.crt"), ours.path("none.key")); err == nil {
		t.Error("a missing key file was accepted")
	}
}
