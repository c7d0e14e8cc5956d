"""`alipayhk-gateway doctor`: find out why AlipayHK and the gateway do not understand each other."""
