"""What callers are told: reasons, gRPC statuses, sentences and details."""
