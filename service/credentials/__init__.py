"""Who callers are and what proves it."""
