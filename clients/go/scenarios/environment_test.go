// Package scenarios runs the scenarios that the clients of all languages must pass, against a real gateway and sandbox.
//
// See docs/clients/go.md for the environment variables and the commands.
package scenarios

import (
	"os"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"linkage.alipayhk/go/linkage"
)

// setting returns an environment variable. If it is not set, the test fails, because a skipped test can go unnoticed.
func setting(t *testing.T, name, meaning string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("This test needs the environment variable %s: %s.", name, meaning)
	}
	return value
}

func connect(t *testing.T, options ...grpc.DialOption) *linkage.Client {
	t.Helper()
	target := setting(t, "LINKAGE_TARGET", "the gateway's host:port")
	client, err := linkage.New(target, transport(t), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func transport(t *testing.T) credentials.TransportCredentials {
	t.Helper()
	ca, cert, key := os.Getenv("LINKAGE_CA_FILE"), os.Getenv("LINKAGE_CERT_FILE"), os.Getenv("LINKAGE_KEY_FILE")
	if ca == "" && cert == "" && key == "" {
		return linkage.Plaintext()
	}
	if ca == "" || cert == "" || key == "" {
		t.Fatal("Set all of LINKAGE_CA_FILE, LINKAGE_CERT_FILE and LINKAGE_KEY_FILE, or none of them for plaintext.")
	}
	mutual, err := linkage.MutualTLS(ca, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return mutual
}
