// Package linkagev1 contains the stubs of alipayhk.linkage.v1. `go generate` makes them from protos/.
//
// Callers usually need only the messages, because package linkage makes the calls.
package linkagev1

//go:generate sh -c "cd ../../.. && .venv/bin/buf generate --template clients/go/buf.gen.yaml"
