"""The wire protocols: one file each. Each implements `endpoint.WireProtocol` with its own settings."""
