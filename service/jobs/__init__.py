"""What a gateway does by the clock, beside its calls."""
