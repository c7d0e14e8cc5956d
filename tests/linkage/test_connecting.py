"""How long a client waits for its connection: longer than a busy gateway takes, shorter than a call has."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from alipayhk_linkage import (
    BlockingLinkageClient,
    LinkageClient,
    LinkageError,
    SyncLinkageRequest,
    SyncLinkageResponse,
)

SERVICE = "alipayhk.linkage.v1.LinkageService"


@asynccontextmanager
async def answering() -> AsyncIterator[int]:
    async def serve(request: bytes, context: object) -> bytes:
        return b""

    rpcs: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "SyncLinkage": grpc.unary_unary_rpc_method_handler(serve)
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, rpcs),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


@asynccontextmanager
async def busy(port: int, for_s: float) -> AsyncIterator[str]:
    """Take a connection at once, and let nothing through for so long."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(for_s)
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        piping = [asyncio.create_task(pipe(*ends)) for ends in ((reader, to_writer), (to_reader, writer))]
        # The client's end stays open for a minute: gRPC keeps its connection after the channel is closed.
        await done.wait()
        for task in piping:
            task.cancel()
        to_writer.close()
        writer.close()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(65_536):
            writer.write(some)

    done = asyncio.Event()
    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        done.set()


async def test_a_busy_gateway_is_waited_for() -> None:
    async with (
        answering() as port,
        busy(port, for_s=1.5) as target,
        LinkageClient(target, retries=False) as client,
    ):
        assert await client.sync_linkage(SyncLinkageRequest()) == SyncLinkageResponse()


def test_one_that_never_answers_is_given_up_before_the_call_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target, began = f"127.0.0.1:{silent.getsockname()[1]}", time.monotonic()
        with BlockingLinkageClient(target, retries=False) as client, pytest.raises(LinkageError) as raised:
            client.sync_linkage(SyncLinkageRequest(), timeout_s=60)
    assert (raised.value.code, raised.value.outcome) == (grpc.StatusCode.UNAVAILABLE, "unknown")
    assert 4 < time.monotonic() - began < 30
