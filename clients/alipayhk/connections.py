"""A pool of connections that match each response to its request: see `pairing`."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.http_writer import _serialize_headers
from yarl import URL

from .pairing import NotReady, PairedProtocol
from .response_head import HEAD_BYTES_MAX, HEADERS_MAX
from .tls_records import acknowledge_at_once
from .wire.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import AddrInfoType, Connection

    from .wire.messages import Headers

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


_ROUTE: Final[ContextVar[Route]] = ContextVar("route")
"""The route of the request that this task sends."""


class Target(ClientRequest):
    """What all POSTs to one URL have in common: their connections, and the first lines of their heads.

    aiohttp's connector needs a request to connect; aiohttp never sends this one.
    """

    def __init__(self, base_url: str, path: str, headers: Mapping[str, str], proxy: str | None) -> None:
        """Raise Unreachable, aiohttp.ClientError or ValueError if nothing can be sent to the URL."""
        # encoded=True: send the path byte for byte as it was signed.
        url = URL(base_url + path, encoded=True)
        if url.raw_path_qs != path or url.raw_fragment:
            raise Unreachable("the path cannot be sent as it was signed")
        if url.scheme not in ("http", "https"):
            raise aiohttp.NonHttpUrlClientError(url)
        through, loop = URL(proxy) if proxy else None, asyncio.get_running_loop()
        to_proxy = {"User-Agent": headers["User-Agent"]}
        super().__init__("POST", url, headers=headers, proxy=through, proxy_headers=to_proxy, loop=loop)
        self._request_line = f"POST {url if proxy and not self.is_ssl() else path} HTTP/1.1"
        self._key = super().connection_key

    @property
    def connection_key(self) -> ConnectionKey:
        """What connections must have in common to be interchangeable."""
        return self._key

    def request_of(self, headers: Headers, body: bytes) -> bytes:
        """Return a whole request; raise ValueError if a header has a forbidden character."""
        lines = self.headers.copy()  # aiohttp adds the proxy's credentials to them
        lines.extend(headers)
        lines["Content-Length"] = str(len(body))
        return _serialize_headers(self._request_line, lines) + body


class PairingConnector(aiohttp.TCPConnector):
    """A pool of `PairedProtocol` connections. With `reuse=False` each connection is used once."""

    def __init__(
        self,
        tls: ssl.SSLContext,
        *,
        reuse: bool,
        connect_timeout_s: float,
        quarantine_s: float = QUARANTINE_S,
    ) -> None:
        if reuse:
            super().__init__(ssl=tls, limit=0, keepalive_timeout=KEEP_ALIVE_S, socket_factory=_socket)
        else:
            super().__init__(ssl=tls, limit=0, force_close=True, socket_factory=_socket)
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        self._quarantine_s = quarantine_s
        self._resting: deque[tuple[float, ConnectionKey, ResponseHandler]] = deque()
        protocol: type[ResponseHandler] = PairedProtocol
        self._factory = functools.partial(protocol, loop=self._loop)

    async def acquire(self, target: Target, route: Route) -> tuple[Connection, PairedProtocol]:
        """Return a connection on which no unexpected bytes were received; raise NotReady otherwise.

        There is no await between the last check of the connection and the return. `route` is set.
        """
        _ROUTE.set(route)
        self._return_to_pool()
        while True:
            connection = await self.connect(target, [], self._timeout)
            try:
                protocol = _paired(connection.protocol)
                if is_new := protocol.is_new:
                    protocol.address = _address_of(protocol)
                route.is_new_tls = is_new and protocol.is_tls
                if protocol.address:
                    route.addresses[:] = [protocol.address]
                if await protocol.ready():
                    expect_response(protocol)
                    if route.is_new_tls:  # after the caller has written its request
                        self._loop.call_soon(acknowledge_at_once, protocol.transport)
                    return connection, protocol
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


def expect_response(protocol: PairedProtocol) -> None:
    """Set how aiohttp parses the next response of a connection."""
    protocol.set_response_params(
        read_until_eof=True,
        auto_decompress=False,
        max_line_size=HEAD_BYTES_MAX,
        max_field_size=HEAD_BYTES_MAX,
        max_headers=HEADERS_MAX,
    )


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
    if route := _ROUTE.get(None):
        route.addresses.append(_text_of(peer))
    return socket.socket(family, kind, number)


def _address_of(protocol: PairedProtocol) -> str:
    """Return the address of the other side; empty if the connection is lost already."""
    peer = protocol.transport and protocol.transport.get_extra_info("peername")
    return _text_of(peer) if peer else ""


def _text_of(peer: tuple[object, ...]) -> str:
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _paired(protocol: object) -> PairedProtocol:
    if not isinstance(protocol, PairedProtocol):
        raise TypeError("aiohttp created a connection that does not check its responses")
    return protocol
