"""An HTTP server on raw sockets: it records every byte and runs the script of a test on each connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self


@dataclass(frozen=True)
class Request:
    """One HTTP request, exactly as received."""

    raw: bytes
    """The head, including the empty line."""
    body: bytes

    @cached_property
    def line(self) -> str:
        """The request line."""
        return self.raw.split(b"\r\n", 1)[0].decode("latin-1")

    @cached_property
    def target(self) -> str:
        """Path and query."""
        return self.line.split(" ")[1]

    @cached_property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Header lines in the order sent."""
        lines = self.raw.decode("latin-1").split("\r\n")[1:-2]
        return tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))

    def values(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str:
        """Return the one value of a header."""
        (value,) = self.values(name)
        return value

    def has(self, name: str) -> bool:
        """Whether a header is present."""
        return bool(self.values(name))


@dataclass
class Peer:
    """One accepted connection, as a script uses it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[Request]
    """The requests of all connections."""
    written: int = 0

    async def request(self) -> Request:
        """Read one request; raise IncompleteReadError when the connection ends first."""
        head = Request(await self.reader.readuntil(b"\r\n\r\n"), b"")
        length = int(head.header("Content-Length")) if head.has("Content-Length") else 0
        request = Request(head.raw, await self.reader.readexactly(length))
        self.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        """Write bytes; wait until the other side has taken most of them."""
        self.writer.write(data)
        await self.writer.drain()
        self.written += len(data)

    async def wait_until_closed(self) -> None:
        """Wait until the other side has closed the connection."""
        with contextlib.suppress(OSError):
            while await self.reader.read(4096):
                pass

    def close(self) -> None:
        """Close the connection in order."""
        self.writer.close()

    def reset(self) -> None:
        """Close the connection with a RST."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


@dataclass
class Listener:
    """A listener that runs a script on every connection."""

    follow: Callable[[Peer], Awaitable[None]]
    tls: ssl.SSLContext | None = None
    bound: socket.socket | None = None
    """A socket that is already bound; None for a free port."""
    requests: list[Request] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        bound = self.bound or socket.create_server(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._accept, sock=bound, ssl=self.tls)
        self.port = bound.getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, self.requests)
        self.peers.append(peer)
        self.accepted.set()
        self.tasks.append(asyncio.create_task(self._serve(peer)))

    async def _serve(self, peer: Peer) -> None:
        try:
            await self.follow(peer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other side closed first
        finally:
            peer.close()
            with contextlib.suppress(OSError):
                await peer.writer.wait_closed()
