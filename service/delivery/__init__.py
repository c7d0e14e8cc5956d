"""Send each request to AlipayHK once, in order and within its deadline."""
