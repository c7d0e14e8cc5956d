"""The connection timeout: longer than a busy gateway needs, shorter than the deadline of a call."""

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
from tests.linkage.fake_gateway import Gateway


@asynccontextmanager
async def busy(target: str, for_s: float) -> AsyncIterator[str]:
    """Run a relay that accepts connections, and relays nothing in their first `for_s` seconds."""
    host, _, port = target.rpartition(":")

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(for_s)
        to_reader, to_writer = await asyncio.open_connection(host, int(port))
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


async def test_a_client_waits_for_a_busy_gateway(gateway: tuple[Gateway, str]) -> None:
    async with (
        busy(gateway[1], for_s=1.5) as target,
        LinkageClient(target, retries=False) as client,
    ):
        assert await client.sync_linkage(SyncLinkageRequest()) == SyncLinkageResponse()


def test_a_silent_gateway_fails_the_call_before_its_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target, start = f"127.0.0.1:{silent.getsockname()[1]}", time.monotonic()
        with BlockingLinkageClient(target, retries=False) as client, pytest.raises(LinkageError) as raised:
            client.sync_linkage(SyncLinkageRequest(), timeout_s=60)
    assert (raised.value.code, raised.value.outcome) == (grpc.StatusCode.UNAVAILABLE, "unknown")
    assert 4 < time.monotonic() - start < 30
