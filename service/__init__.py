"""The inbound side: gRPC in, gRPC out.

Floors, top to bottom; imports go down only:

    cli, demo        composition root: Settings -> Client -> Delivery -> Server
    server, admin    ports, TLS, health, reflection, drain | /metrics, /livez, /readyz
    interceptors     access log and metrics, error -> status, caller allow-list
    linkage          one row per RPC, and `unary`, the whole flow
    rpcs             all that is peculiar to one RPC: rules, command, body, reply
    delivery         detached, tracked attempts within the caller's deadline
    validation, status, callers, call, refusal, settings, logs, metrics

One call: interceptors -> linkage.unary -> validation -> rpcs (command, body) -> delivery ->
clients.alipayhk.client (seal, send, unseal) -> rpcs (reply), or an error that `status` alone turns
into what the caller is told.
"""
