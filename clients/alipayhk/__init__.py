"""The client of AlipayHK: two wire protocols over one HTTP transport.

It knows nothing of gRPC, of protobuf or of this project's service. Floors, top to bottom; imports
go down only:

    client                       seal -> send -> unseal -> result
    protocols | transport        bytes and meaning, without I/O | the only I/O
    messages, endpoint, keys, crypto, strict_json, clock, result, errors
"""
