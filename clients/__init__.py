"""What this project calls AlipayHK with (`alipayhk`), and what its callers call it with (`linkage`)."""
