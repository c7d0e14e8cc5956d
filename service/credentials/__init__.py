"""Keys and certificates: our own, AlipayHK's, and those of callers with the names that they prove."""
