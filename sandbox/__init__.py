"""A local server that plays AlipayHK, to develop and test against.

It verifies each request, applies it, remembers it, and responds as AlipayHK does. A suffix on the user id,
or the console, makes it return an error or behave wrongly.

Its modules, in the order of one request. Imports go down only:

    cli         parse the flags, print one line, stop cleanly
    server      the only listener: HTTP in, HTTP out
    console     JSON pages: what was received, what is stored, which responses come next
    exchange    one request in, one response out; no I/O
    programme   the faults that the console has set for the next responses
    opening     verify and read a request, or reject it with the exact reason
    faults      one row for each way to respond with an error or wrongly
    options     read and check the flags
    apis        one row for each API
    delivery    send a response: complete, late, slowly, in part, or not at all
    signatures  replace the signature of a response
    wallet      what AlipayHK stores: linkages, accounts, request ids
    answers     the types of responses
    journal     the last requests and their responses
    validation  check the members of a request strictly
    results     AlipayHK's documented result codes

Each protocol (`clients.alipayhk.wire`) seals and unseals in both directions: the client uses one, the
sandbox the other. `clients.alipayhk.diagnosis` finds what a wrong signature covers. The sandbox imports
neither the client's transport nor the service.
"""
