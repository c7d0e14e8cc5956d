"""Servers on loopback that write exact bytes: an upstream and a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from clients.alipayhk.connections import QUARANTINE_S
from clients.alipayhk.transport import Attempt, Transport
from clients.alipayhk.wire.errors import CallError
from clients.alipayhk.wire.messages import Headers, RawResponse, SealedRequest
from tests.raw_http import Listener, Peer

NO_AUTHORITIES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody, and is quickly made: reading those of the system takes longer than most tests."""


_TRACERS: Final = itertools.count(1)


def traced(answer: bytes) -> bytes:
    """Give an answer a Tracer-Id of its own, as AlipayHK does."""
    return answer.replace(b"\r\n", b"\r\nTracer-Id: tracer-%d\r\n" % next(_TRACERS), 1)


async def rested() -> None:
    """Wait until a connection that has answered may be used again."""
    await asyncio.sleep(QUARANTINE_S + 0.05)


Upstream = Listener
Script = Callable[[Peer], Awaitable[None]]


def replying(*answers: bytes) -> Script:
    """Answer one request after another on one connection, then close it."""

    async def script(wire: Peer) -> None:
        for answer in answers:
            await wire.request()
            await wire.send(answer)

    return script


async def hanging(wire: Peer) -> None:
    """Read a request and say nothing."""
    await wire.request()
    await asyncio.Event().wait()


async def deaf(wire: Peer) -> None:
    """Accept the connection, and neither read nor write."""
    await asyncio.Event().wait()


async def relaying(wire: Peer) -> None:
    """Tunnel to wherever CONNECT says, as an egress proxy does."""
    request = await wire.request()
    host, _, port = request.line.split(" ")[1].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await wire.send(b"HTTP/1.1 200 Connection established\r\n\r\n")

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(65536):
                target.write(chunk)
                await target.drain()
            target.close()

    try:
        await asyncio.gather(copy(wire.reader, writer), copy(reader, wire.writer))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@dataclass(frozen=True)
class Outcome:
    """How one post ended."""

    sent: bool
    took_s: float
    answer: RawResponse | None = None
    error: CallError | None = None

    @property
    def ending(self) -> tuple[type[CallError] | None, bool]:
        """The class of its error, if any, and whether a byte may have left."""
        return type(self.error) if self.error else None, self.sent


@contextlib.asynccontextmanager
async def transport(
    *,
    timeout_s: float = 5.0,
    connect_timeout_s: float = 2.0,
    tls: ssl.SSLContext | None = NO_AUTHORITIES,
    proxy: str | None = None,
    **options: Any,
) -> AsyncIterator[Transport]:
    """Open a transport, and close it."""
    opened = Transport(
        timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, tls=tls, proxy=proxy, **options
    )
    try:
        yield opened
    finally:
        await opened.close()


async def post(
    opened: Transport,
    base_url: str,
    *,
    path: str = "/p",
    body: bytes = b'{"a":1}',
    headers: Headers = (("Content-Type", "application/json; charset=UTF-8"),),
    reuse_connection: bool = False,
    fresh_connection: bool = False,
) -> Outcome:
    """Post once, and say how it ended."""
    attempt = Attempt(fresh_connection=fresh_connection)
    started = time.perf_counter()
    answer, error = None, None
    try:
        answer = await opened.post(
            base_url, SealedRequest(path, headers, body), attempt, reuse_connection=reuse_connection
        )
    except CallError as caught:
        error = caught
        assert error.sent is attempt.sent
    return Outcome(attempt.sent, time.perf_counter() - started, answer, error)


async def post_once(
    base_url: str,
    *,
    path: str = "/p",
    timeout_s: float = 5.0,
    connect_timeout_s: float = 2.0,
    tls: ssl.SSLContext | None = NO_AUTHORITIES,
    proxy: str | None = None,
) -> Outcome:
    """Post once over a transport of its own."""
    async with transport(
        timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, tls=tls, proxy=proxy
    ) as opened:
        return await post(opened, base_url, path=path)


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """Listen without ever accepting, with no room for another connection: connecting to it hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
