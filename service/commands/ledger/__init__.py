"""`alipayhk-gateway ledger`: requests in the ledger, and the ledger as a file."""
