"""The listener of HEALTH_LISTEN: a relay to gRPC's health service that limits the rate of each connection.

Anyone can connect to HEALTH_LISTEN, and gRPC cannot limit the cost of a connection: endless headers take
tens of MiB (docs/upstream-bugs.md). So gRPC listens on loopback, and this relay in front of it forwards a
limited number of bytes per second. Faster data stays in the sender's socket. Each connection is closed
after CONNECTION_S, and a connection beyond `CONNECTIONS_MAX` closes the oldest one.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from ..config.values import Address

CONNECTIONS_MAX: Final = 64
CONNECTION_S: Final = 60.0
"""Time limit of a connection; gRPC sends GOAWAY earlier."""
FIRST_BYTES_S: Final = 10.0
"""Time limit for the first bytes of a connection."""
BURST_BYTES: Final = 16 * 1024
BYTES_PER_S: Final = 2 * 1024
"""Enough for about 20 Checks per second on one connection."""
CHUNK_BYTES: Final = 2 * 1024


class ProbeGate:
    """Listens for probes, and relays their bytes to a gRPC server on loopback."""

    def __init__(self, backend: Address) -> None:
        self._backend = backend
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def start(self, address: Address, *, shared: bool) -> None:
        """Listen; raise OSError or UnicodeError if the address cannot be used."""
        self._server = await asyncio.start_server(
            self._accept, address.host, address.port, limit=CHUNK_BYTES, reuse_port=shared
        )

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._server is not None:
            self._server.close()
        relays = list(self._open)
        for writer in self._open.values():
            writer.transport.abort()
        await asyncio.gather(*relays, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.create_task(self._relay(reader, writer))
        self._open[relay] = writer
        relay.add_done_callback(self._open.pop)
        for oldest in list(self._open.values())[:-CONNECTIONS_MAX]:
            oldest.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side closes it or its time limit."""
        try:
            async with asyncio.timeout(CONNECTION_S):
                async with asyncio.timeout(FIRST_BYTES_S):
                    first = await reader.read(CHUNK_BYTES)
                # A silent connection costs one descriptor instead of three.
                if first:
                    await self._to_backend(first, reader, writer)
        except (OSError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _to_backend(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answers, backend = await asyncio.open_connection(
            self._backend.host, self._backend.port, limit=CHUNK_BYTES
        )
        ways = [
            asyncio.create_task(_pump(first, reader, backend, _Allowance())),
            asyncio.create_task(_pump(b"", answers, writer, None)),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            backend.transport.abort()


@dataclass(slots=True)
class _Allowance:
    """The number of bytes that a connection can send now."""

    left: float = BURST_BYTES
    at_s: float = field(default_factory=time.monotonic)

    async def take(self, count: int) -> None:
        """Wait until `count` bytes are allowed."""
        now_s = time.monotonic()
        self.left = min(self.left + (now_s - self.at_s) * BYTES_PER_S, BURST_BYTES) - count
        self.at_s = now_s
        if self.left < 0:
            await asyncio.sleep(-self.left / BYTES_PER_S)


async def _pump(
    data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowance: _Allowance | None
) -> None:
    """Write `data`, then everything from the reader until EOF."""
    while data or not reader.at_eof():
        if data and allowance is not None:
            await allowance.take(len(data))
        writer.write(data)
        await writer.drain()
        data = await reader.read(CHUNK_BYTES)
