// Package scenarios runs the scenarios that the clients of all languages must pass, against a real gateway and sandbox.
//
// See docs/clients/go.md for the environment variables and the commands.
package scenarios

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
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
	if sharedLedger() {
		options = append(options, linkage.WithSharedLedger(), grpc.WithResolvers(addresses(target)))
	}
	client, err := linkage.New(target, transport(t), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// sharedLedger reports whether the target has several gateways with one ledger.
func sharedLedger() bool { return os.Getenv("LINKAGE_SHARED_LEDGER") != "" }

// addresses resolves a target like "ipv4:127.0.0.1:1,127.0.0.1:2", which gRPC for Go cannot do without it.
func addresses(target string) *manual.Resolver {
	builder, state := manual.NewBuilderWithScheme("ipv4"), resolver.State{}
	for address := range strings.SplitSeq(strings.TrimPrefix(target, "ipv4:"), ",") {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
	}
	builder.InitialState(state)
	return builder
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
