"""The listeners: gRPC with its interceptors and RPCs, health, and the operators' HTTP."""
