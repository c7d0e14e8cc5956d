"""The command `alipayhk-gateway doctor`."""
