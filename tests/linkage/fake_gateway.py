"""A gRPC server in the place of the gateway, which records its calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import grpc

from alipayhk.linkage.v1 import linkage_service_pb2_grpc
from alipayhk_linkage import BindAccountResponse, SyncLinkageResponse

Handler = Any
SERVICE: Final = "alipayhk.linkage.v1.LinkageService"


class Gateway(linkage_service_pb2_grpc.LinkageServiceServicer):
    """Records the metadata of calls, and fails them with the given codes and pushbacks."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, Any]] = []
        self.time_left_s: list[float] = []
        self.pushbacks: list[str | None] = []
        self.codes: list[grpc.StatusCode] = []

    async def SyncLinkage(self, request: Any, context: Any) -> SyncLinkageResponse:  # noqa: N802
        await self.called(context)
        return SyncLinkageResponse()

    async def BindAccount(self, request: Any, context: Any) -> BindAccountResponse:  # noqa: N802
        await self.called(context)
        return BindAccountResponse()

    async def called(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        self.time_left_s.append(context.time_remaining())
        if self.codes:
            pushback = self.pushbacks.pop(0)
            trailers = () if pushback is None else (("grpc-retry-pushback-ms", pushback),)
            await context.abort(self.codes.pop(0), "a test failure", trailers)


@asynccontextmanager
async def a_gateway(servicer: Gateway | None = None) -> AsyncIterator[tuple[Gateway, str]]:
    """Run a `Gateway`; yield it with its address."""
    servicer, server = servicer or Gateway(), grpc.aio.server()
    linkage_service_pb2_grpc.add_LinkageServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(None)


@contextmanager
def serving(handler: Handler) -> Iterator[str]:
    """Serve BindAccount with a handler; yield the address."""
    server = grpc.server(ThreadPoolExecutor(2))
    handlers = grpc.method_handlers_generic_handler(SERVICE, {"BindAccount": handler})
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)
