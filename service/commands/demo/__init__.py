"""`alipayhk-gateway demo`: sandbox, gateways and calls on this machine."""
