"""The client of AlipayHK: it signs and sends requests, and verifies the responses.

It does not know gRPC, protobuf or the gateway's settings. Each layer imports only the layers below it:

    client                   one call: seal, send, unseal, result
    transport                HTTP: sends one POST, and knows whether its first byte was sent
    connections              the connection pool
    pairing                  one connection: matches each response to its request
    response_head            the head of one response: its limits, and faults that are repaired
    diagnosis                why a signature does not verify (for the sandbox and the command doctor)
    wire.protocols           the two wire protocols: business content to bytes and back
    wire.endpoint            one API as agreed at onboarding
    wire.clock               AlipayHK's time format, and how old a response may be
    wire.content_coding      gzip and deflate
    wire.errors, messages    how a call can fail; the types of requests and responses
    wire.crypto, keys, lenient, strict_json, result
                             signatures and encryption, key files, variants read in responses, JSON, results

transport, connections, pairing and tls_records do the network I/O, and keys reads files. Everything else is
pure functions over bytes.
"""
