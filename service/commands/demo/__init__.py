"""`alipayhk-gateway demo`: run a sandbox, two gateways and example calls on this machine."""
