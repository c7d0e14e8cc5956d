"""The listeners: gRPC with its RPCs, gRPC health for probes, and HTTP for operators."""
