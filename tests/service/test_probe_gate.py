"""The relay in front of HEALTH_LISTEN limits the rate and the number of connections of probes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest

from service.config.values import Address
from service.server import probe_gate
from service.server.probe_gate import BURST_BYTES, CONNECTIONS_MAX, ProbeGate
from tests.ports import free_port

WAIT_S: Final = 20.0
FLOOD_BYTES: Final = 1 << 20


@dataclass
class Gate:
    """A gate in front of a server that echoes and counts bytes."""

    port: int
    received: int = 0
    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the gate."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.connections.append(writer)
        return reader, writer

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Count the received bytes, and send them back."""
        try:
            while data := await reader.read(4096):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()


@pytest.fixture
def gated() -> Callable[[], AbstractAsyncContextManager[Gate]]:
    """Return a context manager that runs a gate."""

    @asynccontextmanager
    async def run() -> AsyncIterator[Gate]:
        gate = Gate(free_port())
        backend = await asyncio.start_server(gate.echo, "127.0.0.1", 0)
        relay = ProbeGate(Address("127.0.0.1", backend.sockets[0].getsockname()[1]))
        await relay.start(Address("127.0.0.1", gate.port), shared=False)
        try:
            yield gate
        finally:
            for writer in gate.connections:
                writer.transport.abort()
            await relay.stop()
            backend.close()

    return run


Gated = Callable[[], AbstractAsyncContextManager[Gate]]


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send a few bytes, and return the echo; it is empty if the connection was closed."""
    try:
        writer.write(b"ping")
        async with asyncio.timeout(WAIT_S):
            return await reader.read(4)
    except ConnectionError:
        return b""


async def test_connections_up_to_the_limit_are_served(gated: Gated) -> None:
    async with gated() as gate:
        connections = [await gate.connect() for _ in range(CONNECTIONS_MAX)]
        for _ in range(2):
            assert [await answered(*each) for each in connections] == [b"ping"] * CONNECTIONS_MAX


async def test_a_connection_beyond_the_limit_closes_the_oldest(gated: Gated) -> None:
    async with gated() as gate:
        connections = [await gate.connect() for _ in range(CONNECTIONS_MAX)]
        assert [await answered(*each) for each in connections] == [b"ping"] * CONNECTIONS_MAX
        connections.append(await gate.connect())
        assert await answered(*connections[-1]) == b"ping"
        assert await answered(*connections[0]) == b""
        assert [await answered(*each) for each in connections[1:]] == [b"ping"] * CONNECTIONS_MAX


async def test_a_flooding_connection_is_read_slowly(gated: Gated) -> None:
    async with gated() as gate:
        _, writer = await gate.connect()
        writer.write(bytes(FLOOD_BYTES))
        await asyncio.sleep(1)
        assert BURST_BYTES <= gate.received < FLOOD_BYTES / 8
        assert await answered(*await gate.connect()) == b"ping", "others do not wait for it"


@pytest.mark.parametrize("limit", ["FIRST_BYTES_S", "CONNECTION_S"])
async def test_a_silent_connection_is_closed(
    gated: Gated, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(probe_gate, limit, 1.0)
    async with gated() as gate:
        reader, _ = await gate.connect()
        async with asyncio.timeout(WAIT_S):
            assert await reader.read(1) == b""
    assert gate.received == 0
