"""The outcome of every call, as its caller gets it: reason, gRPC status, sentence and details."""
