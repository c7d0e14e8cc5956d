"""A hostile AlipayHK on raw sockets: it records every byte and responds as the test's script says."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

PATIENCE_S: Final = 10.0


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

    def header(self, name: str) -> str:
        """Return the one value of a header."""
        (value,) = (value for key, value in self.headers if key.lower() == name.lower())
        return value

    def has(self, name: str) -> bool:
        """Whether the request has a header."""
        return any(key.lower() == name.lower() for key, _ in self.headers)


@dataclass(frozen=True)
class Response:
    """One HTTP response, which a test can change before it is sent."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def but(self, *, status: int | None = None, body: bytes | None = None) -> Response:
        """Return this response with another status or body."""
        return replace(
            self,
            status=self.status if status is None else status,
            body=self.body if body is None else body,
        )

    def header(self, name: str) -> str:
        """Return the one value of a header."""
        (value,) = (value for key, value in self.headers if key.lower() == name.lower())
        return value

    def setting(self, name: str, *values: str) -> Response:
        """Return this response with exactly these values of one header; no value removes the header."""
        others = tuple(line for line in self.headers if line[0].lower() != name.lower())
        return replace(self, headers=(*others, *((name, value) for value in values)))

    def head(self, *framing: tuple[str, str]) -> bytes:
        """Return the bytes of the head."""
        lines = [f"HTTP/1.1 {self.status} Whatever"]
        lines += [f"{name}: {value}" for name, value in (*self.headers, *framing)]
        return "\r\n".join((*lines, "", "")).encode("latin-1")

    def wire(self) -> bytes:
        """Return the bytes of the whole response, with Content-Length."""
        return self.head(("Content-Length", str(len(self.body)))) + self.body

    def chunked(self) -> bytes:
        """Return the bytes of the response in one chunk, without the empty last chunk."""
        head = self.head(("Transfer-Encoding", "chunked"))
        return head + f"{len(self.body):x}\r\n".encode() + self.body + b"\r\n"


@dataclass
class Peer:
    """The gateway's connection, as a script uses it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Write bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def wait_until_closed(self) -> None:
        """Wait until the gateway has closed the connection."""
        try:
            while await self.reader.read(4096):
                pass
        except OSError:
            pass

    def close(self) -> None:
        """Close the connection in order."""
        self.writer.close()

    def reset(self) -> None:
        """Close the connection with a RST."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


Script = Callable[[Request, Peer], Awaitable[None]]


async def hangs(_: Request, peer: Peer) -> None:
    """Never respond."""
    await peer.wait_until_closed()


async def closes(_: Request, peer: Peer) -> None:
    """Close the connection without a response."""
    peer.close()


async def resets(_: Request, peer: Peer) -> None:
    """Reset the connection without a response."""
    peer.reset()


def sends(data: bytes | Iterable[bytes], *, then: Script = hangs, pause_s: float = 0.0) -> Script:
    """Return a script that sends these bytes for any request, and then runs the script `then`."""

    async def script(request: Request, peer: Peer) -> None:
        for part in (data,) if isinstance(data, bytes) else data:
            await peer.send(part)
            if pause_s:
                await asyncio.sleep(pause_s)
        await then(request, peer)

    return script


def responds(make: Callable[[Request], Response]) -> Script:
    """Return a script that sends the whole response that `make` returns for the request."""

    async def script(request: Request, peer: Peer) -> None:
        await peer.send(make(request).wire())

    return script


@dataclass
class Upstream:
    """The listener. It runs one script, which a test sets before it calls."""

    tls: ssl.SSLContext | None = None
    script: Script = hangs
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    faults: list[BaseException] = field(default_factory=list)
    """Exceptions of scripts: faults of the test itself."""
    _received: asyncio.Condition = field(default_factory=asyncio.Condition)
    _serving: set[asyncio.Task[None]] = field(default_factory=set)
    _answering: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def reset(self, script: Script) -> None:
        """Forget the received requests, and use this script."""
        self.script = script
        self.requests.clear()
        self.connections = 0

    async def wait_for_request(self, count: int = 1) -> Request:
        """Wait until `count` whole requests were received; return the last of them."""
        async with asyncio.timeout(PATIENCE_S), self._received:
            await self._received.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def release(self) -> None:
        """Close every connection with an unfinished response; idle connections stay open."""
        await _cancelled(self._answering)

    async def close(self) -> None:
        """Close every connection."""
        await _cancelled(self._serving)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self.connections += 1
        try:
            while (request := await _read(reader)) is not None:
                async with self._received:
                    self.requests.append(request)
                    self._received.notify_all()
                self._answering.add(task)
                await self.script(request, Peer(reader, writer))
                self._answering.discard(task)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the gateway closed the connection, or the test ended
        except Exception as error:  # noqa: BLE001  (the fixture reports it after the test)
            self.faults.append(error)
        finally:
            self._answering.discard(task)
            writer.close()


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    request = Request(head, b"")
    if not request.has("Content-Length"):
        return request
    return Request(head, await reader.readexactly(int(request.header("Content-Length"))))


@asynccontextmanager
async def listening(
    tls: ssl.SSLContext | None = None, *, bound: socket.socket | None = None
) -> AsyncIterator[Upstream]:
    """Listen on a free port, or on a socket that is already bound."""
    upstream = Upstream(tls)
    bound = bound or socket.create_server(("127.0.0.1", 0))
    server = await asyncio.start_server(upstream.serve, sock=bound, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        await upstream.close()
        await server.wait_closed()
    assert upstream.faults == []
