"""Connections on which every response belongs to the request before it.

Theory of operation. A header-signed response does not name its request: the gateway matches them by their
order on the connection. aiohttp's pool does not check that order (aio-libs/aiohttp#13656), so this module
does. A connection is in one of four states:

    idle      No request is being written. Any byte, even part of a TLS record, closes the connection.
    asked     The request's last byte was written. The next response is the response to it.
    answered  The head of the response was received. The response is complete when its payload has ended.
              Any later byte closes the connection; the complete response is still accepted.
    resting   The response is complete, and the connection waits `QUARANTINE_S` before it returns to the
              pool. Any byte closes it. Then it is idle.

A connection returns to the pool only after a response with exactly one Tracer-Id, because the header
Signature alone cannot tell two correct responses of the same second apart (docs/adr/0002). A response whose
Signature and Tracer-Id both equal those of one of the connection's last responses is a repetition of it. A
protocol whose responses have no Tracer-Id therefore gets a new connection for each request.

Every check fails closed: if aiohttp stops calling a method that is overridden here, connections are not
reused, or no response is accepted. tests/alipayhk/test_connection_internals.py lists the undocumented parts
of aiohttp that this module uses.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from .response_head import HeadTooLarge, ResponseHead, UnreadableBody, UnreadableHead, parser_reason
from .tls_records import CountedRecords, count_records

if TYPE_CHECKING:
    from aiohttp.http_parser import RawResponseMessage
    from aiohttp.streams import StreamReader

ANSWERS_REMEMBERED: Final = 64
INTERIM_MAX: Final = 64
"""How many 1xx responses are allowed before a response."""
HEADS_BYTES_MAX: Final = 256 * 1024
"""How many bytes are allowed up to the end of a response's head, including 1xx responses."""
REST_BYTES_MAX: Final = 2 * 1024 * 1024
"""How many bytes are allowed after a response's head: 256 KiB in the smallest chunks have fewer."""
_READ_PASSES: Final = 8
"""How many passes of the event loop `ready` waits for received bytes to be read; two are usual."""
_FIRST_FINAL_STATUS: Final = 200
_SWITCHING_PROTOCOLS: Final = 101


class UnexpectedBytes(aiohttp.ClientConnectionError):
    """Bytes were received that are not the response to a request on this connection."""


class NotReady(aiohttp.ClientConnectionError):
    """The connection was closed, or bytes were received on it, before the request was written."""


class TooManyInterimResponses(aiohttp.ClientConnectionError):
    """More 1xx responses, or more bytes, than allowed were received before the response."""


class RepeatedAnswer(aiohttp.ClientError):
    """The response repeats an earlier response of the same connection."""


class PairedProtocol(ResponseHandler):
    """One connection, with its state."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._asked = self._has_tracer_id = self._half_closed = False
        self._answer: StreamReader | None = None
        self._interim = 0
        self._head = ResponseHead()
        self._head_bytes = self._rest_bytes = 0
        self._records: CountedRecords | None = None
        self._poll: select.poll | None = None
        self._transports: tuple[asyncio.Transport, ...] = ()
        self.is_new = True
        """Whether no response was received on this connection."""
        self.is_tls = False
        self.address = ""
        """Host and port of the other side; `connections` sets it."""
        self.lost_by: BaseException | None = None
        """The error that ended the connection; None while it is open, and if it was closed properly."""
        self._seen: deque[int] = deque(maxlen=ANSWERS_REMEMBERED)

    @property
    def should_close(self) -> bool:
        """Whether the connection must not return to the pool."""
        return not self._has_tracer_id or super().should_close

    @property
    def is_open(self) -> bool:
        """Whether neither side is closing the connection."""
        return self.is_connected() and not self._half_closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to count the connection's TLS records; up to now only the handshake has used it."""
        self._records = count_records(transport)
        super().connection_made(transport)
        self.is_tls = transport.get_extra_info("ssl_object") is not None
        # asyncio's TLS transport does not count bytes that wait in the transport below it.
        below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
        self._transports = tuple(filter(None, (self.transport, below)))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Keep the error that ended the connection: aiohttp keeps it only for a request that waits."""
        self.lost_by = exc
        self._poll = None  # the descriptor may soon belong to another connection
        super().connection_lost(exc)

    async def ready(self) -> bool:
        """Read received bytes; return whether a request may be written now.

        There is no await between the last check of the socket and the return.
        """
        for _ in range(_READ_PASSES):
            if not self.is_open or not (self._answer is None or self._has_tracer_id):
                return False
            if not self._has_unread_bytes():
                if self.is_tls and not self.is_new and (self._records is None or self._records.is_inside):
                    return False  # part of a TLS record was received, or this cannot be found out
                self._asked, self._answer, self._has_tracer_id = False, None, False
                self._interim = self._head_bytes = self._rest_bytes = 0
                return True
            await asyncio.sleep(0)
        return False

    async def exchange(self, request: bytes) -> tuple[RawResponseMessage, StreamReader]:
        """Write a whole request; return the head of its response, and the body to read.

        Call this without an await after `ready`. Raise ClientError; HttpProcessingError if it is not HTTP.
        """
        self._transports[0].write(request)
        self.start_timeout()
        return await self.read()

    def start_timeout(self) -> None:
        """Enter the state `asked`: the request's last byte was written, of a CONNECT by aiohttp."""
        self._asked = True
        super().start_timeout()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002  (aiohttp's)
        """Do nothing unless reading was paused: aiohttp calls this for each part of a body."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        """Parse bytes only if a request is waiting for its response; otherwise close the connection."""
        if data and not self._may_answer():
            self._refuse(UnexpectedBytes("bytes were received without a request"))
            return
        rest = data
        while rest and self._answer is None:
            rest = self._head_received(rest)
            if self.exception() is not None:
                return
        if rest or not data:
            self._rest_bytes += len(rest)
            if self._rest_bytes > REST_BYTES_MAX:
                self._refuse(UnexpectedBytes("too many bytes after the response's head"))
            else:
                super().data_received(rest)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Handle one parsed message: count a 1xx response, accept one response, refuse a second one."""
        message, payload = data
        if self._answer is not None:
            self._refuse(UnexpectedBytes("more than one response was received"))
        elif message.code < _FIRST_FINAL_STATUS and message.code != _SWITCHING_PROTOCOLS:
            self._interim += 1
            if self._interim > INTERIM_MAX:
                self._refuse(TooManyInterimResponses("too many 1xx responses before the response"))
        else:
            self._answer, self.is_new = payload, False
            if self._is_repeated(message):
                self._refuse(RepeatedAnswer("an earlier response of this connection was repeated"))
            else:
                super().feed_data(data, size)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        """Fail the request that waits, with the parser's reason if the parser refused its response."""
        if isinstance(exc, HttpProcessingError):
            reason = parser_reason(exc.message, exc_cause)
            if self._answer is not None and not self._answer.is_eof():
                self._answer.set_exception(UnreadableBody(f"the response's body cannot be read: {reason}"))
            elif self._answer is None and self._head.http_status:
                exc = UnreadableHead(reason, self._head.http_status)
        super().set_exception(exc, exc if exc_cause is None else exc_cause)

    def eof_received(self) -> None:
        """Note that the other side will send nothing more; a TLS connection is still open then."""
        self._half_closed = True
        super().eof_received()

    def _may_answer(self) -> bool:
        if self._answer is not None:
            return not self._answer.is_eof()
        # Bytes of the request that are not in the kernel yet cannot have been answered.
        return self._asked and not any(each.get_write_buffer_size() for each in self._transports)

    def _head_received(self, data: bytes) -> bytes:
        """Parse a head as soon as it is complete; return the bytes after it."""
        try:
            head, rest = self._head.take(data)
        except HeadTooLarge as error:
            self._refuse(error)
            return b""
        if self._head.repaired:
            self.force_close()
        self._head_bytes += len(data) - len(rest)
        if (size := self._head.body_bytes) is not None and size <= len(rest):
            if size < len(rest):
                self.force_close()
            head, rest = head + rest[:size], b""  # a complete response: the parser needs one call
        super().data_received(head)
        if self._answer is None and self._head_bytes > HEADS_BYTES_MAX:
            self._refuse(TooManyInterimResponses("too many bytes before the response"))
        return rest

    def _is_repeated(self, message: RawResponseMessage) -> bool:
        """Remember a response by Signature and Tracer-Id; return whether it was received before."""
        tracer_ids = message.headers.getall("Tracer-Id", ())
        signatures = message.headers.getall("Signature", ())
        self._has_tracer_id = len(tracer_ids) == 1 and bool(tracer_ids[0].strip())
        if not self._has_tracer_id or not signatures:
            return False
        identity = hash((*tracer_ids, "", *signatures))
        repeated = identity in self._seen
        self._seen.append(identity)
        return repeated

    def _refuse(self, error: aiohttp.ClientError) -> None:
        """Close the connection immediately; the request that waits on it fails with `error`."""
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()

    def _has_unread_bytes(self) -> bool:
        """Whether the kernel has received bytes or the end of the connection, not yet read."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._transports[0].get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._poll.poll(0))
