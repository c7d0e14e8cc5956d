"""A stand-in AlipayHK to develop against: it verifies, answers, remembers, and misbehaves on demand.

One request, top to bottom; imports go down only:

    cli         flags in, one line out, a clean stop
    server      the only listener: HTTP in, HTTP out
    options     the flags, read once
    console     what arrived, what is remembered, what to answer next, over HTTP
    exchange    a raw request in, an answer out; no I/O
    journal     the last requests and their answers
    programme   the answers that were asked for in advance
    opening     verify and read, or say precisely what is wrong
    mistakes    recognise what was signed instead
    claims      what a request says of itself before any of it is known to be true
    faults      one row per way to misbehave
    delivery    how an answer leaves, or does not
    signatures  other signatures on a sealed answer
    answers     what is sent back, and what it is sealed from
    apis        one row per API
    wallet      what AlipayHK remembers: linkages, accounts, request ids
    validation  the members of a request, strictly
    results     AlipayHK's documented result codes

It shares the wire protocols with `clients.alipayhk`, whose mirror direction it uses, and imports neither
the client itself nor the service.
"""
