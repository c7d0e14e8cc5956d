// Package linkagev1 holds the stubs of alipayhk.linkage.v1, made from protos/ by `go generate`.
//
// A caller rarely needs more of it than the messages: package linkage makes the calls.
package linkagev1

//go:generate sh -c "cd ../../.. && .venv/bin/buf generate --template clients/go/buf.gen.yaml"
