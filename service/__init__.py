"""The inbound side: gRPC in, gRPC out.

Floors, top to bottom; imports go down only:

    cli, serve       which command runs; one process, or `workers` of them
    gateway          composition root: Settings -> Ledger -> Bookkeeping -> Client -> Delivery -> Server
    server, admin    ports, TLS, health, reflection, drain | /metrics, /livez, /readyz
    interceptors     access log and metrics, error -> status, caller allow-list
    linkage          one row per RPC, and `unary`, the whole flow
    rpcs             all that is peculiar to one RPC: rules, command, body, reply
    delivery, turns  one flight per request id, one at a time per linkage, within the callers' deadlines
    attempts         when to try, by `pacing`, and `observing` each attempt
    bookkeeping      what the ledger is told of a flight, and what its answers mean for one
    ledger           what was sent, and what came of it
    validation, status, details, callers, call, refusal, settings, logs, metrics

One call: interceptors -> linkage.unary -> validation -> rpcs (command, body) -> delivery -> bookkeeping
(claim) -> clients.alipayhk.client (seal, send, unseal) -> bookkeeping (what came of it) -> rpcs (reply),
or an error that `status` alone turns into what the caller is told.
"""
