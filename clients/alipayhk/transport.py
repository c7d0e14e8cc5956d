"""Send one POST, and know whether its first byte was sent."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from .connections import QUARANTINE_S, PairingConnector, Route, Target
from .pairing import NotReady, RepeatedAnswer
from .response_head import HeadTooLarge, UnreadableBody, UnreadableHead
from .tls import context_of
from .tls import fault_of as tls_fault_of
from .wire import content_coding
from .wire.errors import (
    CallError,
    ConnectionLost,
    LeaseExpired,
    Repeated,
    Timeout,
    TlsInvalid,
    Truncated,
    Unreachable,
    Unsigned,
)
from .wire.messages import Exchange, Headers, RawResponse, SealedRequest

if TYPE_CHECKING:
    from aiohttp.http_parser import RawResponseMessage
    from aiohttp.streams import StreamReader

BODY_BYTES_MAX: Final = 256 * 1024
_NO_CONNECTION: Final[dict[type[Exception], str]] = {
    aiohttp.ClientConnectorDNSError: "the host name cannot be resolved",
    aiohttp.ClientHttpProxyError: "the proxy refused to connect to the server",
    aiohttp.ClientProxyConnectionError: "no connection to the proxy",
    aiohttp.ClientConnectorError: "no connection to the server",
}
"""Sentences by kind of error; the kinds before the last one are narrower."""
_MAY_WANT_CERTIFICATE: Final = "the server may require a client certificate"
"""Added if a TLS connection ended without a response, and no other one to this server had any. In TLS 1.3
the client may send before the server has checked its certificate, and some servers then disconnect without
an alert."""


@dataclass(slots=True)
class Attempt:
    """The progress of one attempt at one request."""

    sent: bool = False
    """Whether the first byte may have been sent. Set before it is written, and never unset."""
    fresh_connection: bool = False
    """Whether the request must be sent on a new connection."""
    signing_version: str = field(default="", compare=False)
    """The version of the key that signed the request."""
    skew_s: float | None = field(default=None, compare=False)
    """AlipayHK's time minus ours, in seconds; None unless a verified response contained the time."""
    route: Route = field(default_factory=Route, compare=False, repr=False)
    """The addresses that were tried, for the log."""
    head: RawResponse | None = field(default=None, compare=False, repr=False)
    """The response without its body, not verified, for the log; None unless its head was received."""
    keeps_exchange: bool = field(default=False, compare=False, repr=False)
    exchange: Exchange | None = field(default=None, compare=False, repr=False)
    """What was sent and received, if it is to be kept and the response is whole."""
    capture: str = field(default="", compare=False, repr=False)
    """The name of the exchange's capture, for the log; empty if it is not captured."""
    may_send: Callable[[], bool] = field(default=lambda: True, compare=False, repr=False)
    """Whether the first byte may still be written. Called as late as possible.

    A process can be stopped, or its machine suspended, for any time between two statements.
    """

    def start(self) -> None:
        """Set `sent`, just before the first byte is written; raise LeaseExpired if it must not be written.

        A CONNECT to a proxy and the TLS handshake are complete by then, and contain nothing of the request.
        """
        if not self.may_send():
            raise LeaseExpired("the lease expired before the first byte was written")
        self.sent = True


class Transport:
    """A pool of connections to AlipayHK.

    A connection is reused only for idempotent requests, because a request that is sent while the other side
    closes the connection may or may not arrive. With `reuse_connections=False` every request has its own
    connection. The number of calls in flight is not limited here: time spent waiting for a connection would
    count as time spent connecting. The caller limits it.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        connect_timeout_s: float,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        user_agent: str = "alipayhk-gateway",
        reuse_connections: bool = True,
        quarantine_s: float = QUARANTINE_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._reuse_connections = reuse_connections
        self._proxy = proxy
        self._user_agent = user_agent
        self._targets: dict[tuple[str, str, bool], Target] = {}
        """By base URL, path, and whether connections are reused: a few for each API."""
        self._has_answered: set[str] = set()
        """The base URLs from which a response was received."""
        tls = context_of() if tls is None else tls
        self._pools = {
            reuse: PairingConnector(
                tls, reuse=reuse, connect_timeout_s=connect_timeout_s, quarantine_s=quarantine_s
            )
            for reuse in (True, False)
        }

    async def post(
        self, base_url: str, sealed: SealedRequest, attempt: Attempt, *, reuse_connection: bool
    ) -> RawResponse:
        """Send one request; return the response, unverified.

        Raise NotSent, NoAnswer, Repeated, or, if the head of the response cannot be read, Unsigned.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(base_url, sealed, attempt, reuse_connection=reuse_connection)
        except TimeoutError:
            raise (Timeout if attempt.sent else Unreachable)("no response in time") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise TlsInvalid(_cause_of(error)) from None
        except RepeatedAnswer:
            raise Repeated("the response repeats an earlier response of this connection") from None
        except HeadTooLarge as error:
            raise (Truncated if attempt.sent else Unreachable)(str(error)) from None
        except UnreadableHead as error:
            raise _unreadable(error, attempt) from None
        except HttpProcessingError:
            raise ConnectionLost("what came is not HTTP") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            never = attempt.route.is_new_tls and base_url not in self._has_answered
            hint = _MAY_WANT_CERTIFICATE if never else ""
            raise (ConnectionLost if attempt.sent else Unreachable)(_cause_of(error, hint)) from None

    async def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.close()

    async def _post(
        self, base_url: str, sealed: SealedRequest, attempt: Attempt, *, reuse_connection: bool
    ) -> RawResponse:
        reuse = self._reuse_connections and reuse_connection and not attempt.fresh_connection
        target = self._target(base_url, sealed.path, reuse=reuse)
        connection, protocol = await self._pools[reuse].acquire(target, attempt.route)
        try:
            request = target.request_of(sealed.headers, sealed.body)
            # There is no await between the pool's last check of the connection and the write.
            attempt.start()
            message, payload = await protocol.exchange(request)
            self._has_answered.add(base_url)
            head = attempt.head = _head_of(message)
            body = await _read(payload)
        except BaseException:
            connection.close()
            raise
        connection.release()
        if attempt.keeps_exchange:
            attempt.exchange = Exchange(sealed, head.with_body(body))
        if codings := head.values("content-encoding"):
            body = content_coding.undone(body, codings, bytes_max=BODY_BYTES_MAX)
        return head.with_body(body)

    def _target(self, base_url: str, path: str, *, reuse: bool) -> Target:
        key = base_url, path, reuse
        if (target := self._targets.get(key)) is None:
            headers = {"User-Agent": self._user_agent, "Accept-Encoding": "identity"}
            if not reuse:
                headers["Connection"] = "close"
            target = self._targets[key] = Target(base_url, path, headers, self._proxy)
        return target


def _head_of(message: RawResponseMessage) -> RawResponse:
    """Return a response without its body."""
    return RawResponse(
        http_status=message.code,
        headers=_headers_of(message),
        body=b"",
        end_announced="Content-Length" in message.headers
        or "chunked" in message.headers.get("Transfer-Encoding", "").lower(),
    )


def _headers_of(message: RawResponseMessage) -> Headers:
    """Return the header lines, decoded in one call; the parser refuses NUL in them."""
    texts = b"\0".join(chain.from_iterable(message.raw_headers)).decode("latin-1").split("\0")
    return tuple(zip(texts[::2], texts[1::2], strict=False))  # without headers there is one empty text


async def _read(payload: StreamReader) -> bytes:
    """Read the body; raise Truncated if it is cut short or larger than BODY_BYTES_MAX."""
    body = bytearray()
    try:
        while not payload.at_eof():
            body += await payload.readany()
            if len(body) > BODY_BYTES_MAX:
                raise Truncated("the response is larger than 256 KiB")
    except (aiohttp.ClientError, OSError) as error:
        raise Truncated(_cause_of(error)) from None
    return bytes(body)


def _unreadable(error: UnreadableHead, attempt: Attempt) -> CallError:
    """Return the error for a response with an unreadable head: it has no signature that can be read."""
    cause = f"the response's head cannot be read: {error}"
    return Unsigned(cause, http_status=error.http_status) if attempt.sent else Unreachable(cause)


def _cause_of(error: Exception, hint: str = "") -> str:
    """Return what failed and the name of the error, without its text, which may quote received bytes.

    `hint` is added if the error does not say why the connection was lost.
    """
    if isinstance(error, UnreadableBody):
        return str(error)
    if fault := tls_fault_of(error):
        return fault
    number = getattr(getattr(error, "os_error", error), "errno", None)
    status = f"HTTP {error.status}" if isinstance(error, aiohttp.ClientHttpProxyError) else None
    name = " ".join(filter(None, (type(error).__name__, errno.errorcode.get(number or 0), status)))
    sentence = next((text for kind, text in _NO_CONNECTION.items() if isinstance(error, kind)), None)
    cause = f"{sentence} ({name})" if sentence else name
    is_lost = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | NotReady)
    return f"{cause}: {hint}" if hint and is_lost else cause
