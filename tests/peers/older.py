"""A server in front of a gateway that offers only reflection v1alpha, as older servers do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from tests.peers.processes import WAIT_MAX_S

V1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
V1ALPHA = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


class _Forwarder(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """Forwards every call unchanged, except those of reflection v1."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a call; None for a method that this server does not have."""
        path: str = handler_call_details.method
        if path == V1:
            return None

        def forward(messages: Iterator[Any], context: Any) -> Iterator[bytes]:
            try:
                yield from self._channel.stream_stream(path)(messages, timeout=WAIT_MAX_S)
            except grpc.RpcError as error:
                context.set_trailing_metadata(error.trailing_metadata() or ())
                context.set_code(error.code())
                context.set_details(error.details() or "")

        return grpc.stream_stream_rpc_method_handler(forward)


@contextmanager
def server_in_front_of(address: str) -> Iterator[str]:
    """Run a server that forwards to `address`; return its own address."""
    with grpc.insecure_channel(address) as channel:
        server = grpc.server(ThreadPoolExecutor(8), handlers=[_Forwarder(channel)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
