"""Why a signature does not verify, as far as the request itself shows it."""
