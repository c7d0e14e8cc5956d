"""`alipayhk-gateway ledger`: commands on the requests of a ledger, and on its file."""
