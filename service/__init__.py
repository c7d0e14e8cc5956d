"""The gateway: callers speak gRPC to it, and it speaks HTTP to AlipayHK.

Packages and modules, top to bottom. Imports go down only; `.importlinter` enforces that:

    __main__              `python -m service`
    commands              the command line: serve, workers, config, health, keys, ledger, demo
    gateway               builds one process from the settings, runs it, and shuts it down
    control | replaceable | start_log
                          signals and other settings | what a reload replaces | what is logged at the start
    upstream              the endpoint of each AlipayHK API, and the transport, from the settings
    jobs | server         what runs by the clock | the listeners: gRPC, health, operators' HTTP
    delivery | config     sends each request once, in order, within its deadline | reads the settings
    outcomes              what callers get: codes, reasons, details
    credentials           callers, their certificates, and what is in use of them
    ledger | telemetry    the record of requests and results | logs and metrics

Below all of them is `clients.alipayhk`, the client of AlipayHK.

The path of one call: `admission`, `around`, `linkage_service`, `validation`, an RPC's command and body,
`delivery` (which claims the request id in the ledger), `clients.alipayhk.client` (seal, send, unseal), the
ledger (which records the result), and the RPC's reply. For every error, `outcomes` chooses the status that
the caller gets.
"""
