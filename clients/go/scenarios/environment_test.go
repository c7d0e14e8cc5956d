// Package scenarios holds a caller to what every language's caller must see, against a real gateway and sandbox.
//
// The page docs/clients/go.md says what to set and how to run it.
package scenarios

import (
	"os"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"linkage.alipayhk/go/linkage"
)

// setting fails the test where it is not set: a test that silently does not run is no test.
func setting(t *testing.T, name, holds string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: it holds %s, and this test needs it.", name, holds)
	}
	return value
}

func connect(t *testing.T, options ...grpc.DialOption) *linkage.Client {
	t.Helper()
	target := setting(t, "LINKAGE_TARGET", "the gateway's host:port")
	client, err := linkage.New(target, how(t), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func how(t *testing.T) credentials.TransportCredentials {
	t.Helper()
	ca, cert, key := os.Getenv("LINKAGE_CA_FILE"), os.Getenv("LINKAGE_CERT_FILE"), os.Getenv("LINKAGE_KEY_FILE")
	if ca == "" && cert == "" && key == "" {
		return linkage.Plaintext()
	}
	if ca == "" || cert == "" || key == "" {
		t.Fatal("Of LINKAGE_CA_FILE, LINKAGE_CERT_FILE and LINKAGE_KEY_FILE some are not set: set all, or none for plaintext.")
	}
	mutual, err := linkage.MutualTLS(ca, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return mutual
}
