"""AlipayHK on the wire: requests and responses as bytes, signed, encrypted, verified and read. No I/O."""
