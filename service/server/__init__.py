"""The listeners: gRPC with its interceptors and RPCs, gRPC health for probes, and HTTP for operators."""
