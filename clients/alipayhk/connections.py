"""A pool of connections that match each response to its request: see `pairing`."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import aiohttp

from .pairing import NotReady, PairedProtocol

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest, ConnectionKey
    from aiohttp.connector import AddrInfoType, Connection
    from aiohttp.tracing import Trace

KEEP_ALIVE_S: Final = 15.0
"""How long an idle connection is kept, in seconds: less than the idle timeout of most front ends."""
QUARANTINE_S: Final = 0.1
"""How long a connection waits after a response before it is reused, in seconds (docs/adr/0014)."""

_END_PASSES: Final = 4
"""How many passes of the event loop a connection that ends has to say why; asyncio's TLS needs two."""


@dataclass(slots=True)
class Route:
    """How one request got to the other side: a fact for the log."""

    addresses: list[str] = field(default_factory=list)
    """The address of the connection; before it is made, every address that was tried."""
    is_new_tls: bool = False
    """Whether it is a TLS connection on which no response was received before."""


ROUTE: Final[ContextVar[Route]] = ContextVar("route")
"""The route of the request that this task sends."""


class PairingConnector(aiohttp.TCPConnector):
    """A pool of `PairedProtocol` connections. With `reuse=False` each connection is used once."""

    def __init__(self, tls: ssl.SSLContext, *, reuse: bool, quarantine_s: float = QUARANTINE_S) -> None:
        if reuse:
            super().__init__(ssl=tls, limit=0, keepalive_timeout=KEEP_ALIVE_S, socket_factory=_socket)
        else:
            super().__init__(ssl=tls, limit=0, force_close=True, socket_factory=_socket)
        self._quarantine_s = quarantine_s
        self._resting: deque[tuple[float, ConnectionKey, ResponseHandler]] = deque()
        protocol: type[ResponseHandler] = PairedProtocol
        self._factory = functools.partial(protocol, loop=self._loop)

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  (aiohttp's signature)
    ) -> Connection:
        """Return a connection on which no unexpected bytes were received; raise NotReady otherwise."""
        self._return_to_pool()
        while True:
            connection = await super().connect(req, traces, timeout)
            try:
                protocol = _paired(connection.protocol)
                is_new = protocol.is_new
                _note_route(protocol)
                if await protocol.ready():
                    return connection
                error = await _not_ready(protocol)
            except BaseException:
                connection.close()
                raise
            connection.close()
            if is_new:
                raise error

    def _release(
        self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False
    ) -> None:
        """Return a connection to the pool after `quarantine_s`, so that late bytes show before reuse."""
        if should_close or self.force_close or self.closed or protocol.should_close:
            super()._release(key, protocol, should_close=True)
        else:
            if not self._resting:
                self._loop.call_later(self._quarantine_s, self._wake)
            self._resting.append((self._loop.time() + self._quarantine_s, key, protocol))

    def _wake(self) -> None:
        """Return connections to the pool even if there is no call; one timer serves them all."""
        self._return_to_pool()
        if self._resting:
            self._loop.call_later(self._quarantine_s, self._wake)

    def _return_to_pool(self) -> None:
        while self._resting and self._resting[0][0] <= self._loop.time():
            _, key, protocol = self._resting.popleft()
            super()._release(key, protocol, should_close=not _paired(protocol).is_open)


class PairedBody(aiohttp.BytesPayload):
    """A request's body that checks the connection again before the first byte is written.

    Up to Python 3.11 aiohttp writes in a separate task, one pass of the event loop after `connect`. It
    keeps the head until the body is written, so nothing of the request is written before.
    """

    def __init__(self, body: bytes, on_start: Callable[[], None]) -> None:
        """`on_start` is called just before the first byte is written; if it raises, none is written."""
        super().__init__(body)
        self._on_start = on_start

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write the head and the body; raise NotReady if the connection is no longer ready."""
        protocol = _paired(getattr(writer, "protocol", None))
        if not await protocol.ready():
            raise await _not_ready(protocol)
        # There is no await from here to the write.
        self._on_start()
        await super().write_with_length(writer, content_length)


async def _not_ready(protocol: PairedProtocol) -> NotReady:
    """Return the error of a connection that cannot be used; its cause says why the connection ended."""
    for _ in range(_END_PASSES):
        if protocol.lost_by is None:
            await asyncio.sleep(0)
    error = NotReady("the connection was closed, or bytes were received, before the request")
    error.__cause__ = protocol.lost_by
    return error


def _socket(address: AddrInfoType) -> socket.socket:
    """Return the socket for a connection to an address, and note that the address was tried."""
    family, kind, number, _, peer = address
    if route := ROUTE.get(None):
        route.addresses.append(_text_of(peer))
    return socket.socket(family, kind, number)


def _note_route(protocol: PairedProtocol) -> None:
    route, transport = ROUTE.get(None), protocol.transport
    if route is None or transport is None:
        return
    route.is_new_tls = protocol.is_new and transport.get_extra_info("ssl_object") is not None
    if peer := transport.get_extra_info("peername"):
        route.addresses[:] = [_text_of(peer)]


def _text_of(peer: tuple[object, ...]) -> str:
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _paired(protocol: object) -> PairedProtocol:
    if not isinstance(protocol, PairedProtocol):
        raise TypeError("aiohttp created a connection that does not check its responses")
    return protocol
