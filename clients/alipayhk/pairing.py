"""Connections on which every answer belongs to the request before it.

Theory of operation. A header-signed answer does not name its request: the gateway pairs the two by their
order on the connection. `aiohttp`'s pool does not check that order (aio-libs/aiohttp#13656), so it is
checked here. A connection is in one of four states:

    idle      no request is being written. Any byte closes the connection, also a part of a TLS record.
    asked     the request's last byte was written. The next answer is the answer.
    answered  the answer has begun; it is complete when its payload is at its end. Any later byte closes
              the connection, and the complete answer is still believed.
    resting   the answer is complete, and the pool does not have the connection yet (`QUARANTINE_S`).
              Any byte closes it. Then it is idle.

A connection returns to the pool only after an answer with exactly one Tracer-Id: the header Signature
alone cannot tell two honest answers of one second apart (docs/adr/0002). An answer whose Signature and
Tracer-Id both equal those of one of the connection's last answers is that answer again.

Every check fails closed: when `aiohttp` stops calling one of the methods that are overridden here,
connections are not reused, or no answer is believed. tests/alipayhk/test_connection_internals.py names
what is used of `aiohttp` beyond its documentation.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

from .tls_records import CountedRecords, count_records

if TYPE_CHECKING:
    from aiohttp.http_parser import RawResponseMessage
    from aiohttp.streams import StreamReader

ANSWERS_REMEMBERED: Final = 64
INTERIM_MAX: Final = 64
"""How many 1xx responses may precede an answer."""
HEAD_BYTES_MAX: Final = 256 * 1024
"""How many bytes may precede the end of an answer's head, 1xx responses included."""
_SLICE_BYTES: Final = 4 * 1024
"""How much is parsed at once before the answer's head is there: some 160 of the shortest 1xx responses."""
_READ_PASSES: Final = 8
"""How often the event loop is given the time to read what has come: twice is enough for honest peers."""
_FIRST_FINAL_STATUS: Final = 200
_SWITCHING_PROTOCOLS: Final = 101


class Unasked(aiohttp.ClientConnectionError):
    """Bytes came that are not the answer to a request on this connection."""


class NotReady(aiohttp.ClientConnectionError):
    """The connection ended before a request could be written to it."""


class TooManyInterimResponses(aiohttp.ClientConnectionError):
    """More 1xx responses, or bytes, came before the answer than are allowed."""


class RepeatedAnswer(aiohttp.ClientError):
    """The answer is an earlier one of the same connection again."""


class PairedProtocol(ResponseHandler):
    """One connection, which knows what was asked on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._asked = False
        self._answer: StreamReader | None = None
        self._interim = 0
        self._head_bytes = 0
        self._has_tracer_id = False
        self._half_closed = False
        self._has_answered = False
        self._records: CountedRecords | None = None
        self._seen: deque[int] = deque(maxlen=ANSWERS_REMEMBERED)

    @property
    def is_new(self) -> bool:
        """Whether no answer has come on this connection."""
        return self._answer is None

    @property
    def should_close(self) -> bool:
        """Whether the pool must not have this connection again."""
        return not self._has_tracer_id or super().should_close

    @property
    def is_open(self) -> bool:
        """Whether neither side has begun to close the connection."""
        return self.is_connected() and not self._half_closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the TLS records of the connection, which only its handshake has used so far."""
        self._records = count_records(transport)
        super().connection_made(transport)

    async def ready(self) -> bool:
        """Read what has come already; return whether a request may be written now.

        Nothing is awaited between the last look at the socket and the return.
        """
        for _ in range(_READ_PASSES):
            if not self.is_open or not (self._answer is None or self._has_tracer_id):
                return False
            if not self._has_unread_bytes():
                self._has_answered |= self._answer is not None
                if self._has_answered and self._may_be_inside_record():
                    return False
                self._asked, self._answer, self._has_tracer_id = False, None, False
                self._interim = self._head_bytes = 0
                return True
            await asyncio.sleep(0)
        return False

    def start_timeout(self) -> None:
        """Note that the request's last byte was written: `aiohttp` calls this then."""
        self._asked = True
        super().start_timeout()

    def data_received(self, data: bytes) -> None:
        """Take bytes as an answer only if something was asked and is not answered yet."""
        if data and not self._may_answer():
            self._refuse(Unasked("bytes came that nobody asked for"))
            return
        start = 0
        while self._answer is None and len(data) - start > _SLICE_BYTES:
            self._head_received(data[start : start + _SLICE_BYTES])
            start += _SLICE_BYTES
            if self.exception() is not None:
                return
        if self._answer is None:
            self._head_received(data[start:])
        else:
            super().data_received(data[start:])

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take the parser's next message: count a 1xx response, keep an answer, refuse what follows it."""
        message, payload = data
        if self._answer is not None:
            self._refuse(Unasked("more than one answer came"))
        elif message.code < _FIRST_FINAL_STATUS and message.code != _SWITCHING_PROTOCOLS:
            self._interim += 1
            if self._interim > INTERIM_MAX:
                self._refuse(TooManyInterimResponses("too many 1xx responses came before the answer"))
        else:
            self._answer = payload
            if self._is_repeated(message):
                self._refuse(RepeatedAnswer("an earlier answer of this connection came again"))
            else:
                super().feed_data(data, size)

    def eof_received(self) -> None:
        """Note that the other side sends nothing more: over TLS the connection is still open then."""
        self._half_closed = True
        super().eof_received()

    def _may_answer(self) -> bool:
        if self._answer is not None:
            return not self._answer.is_eof()
        return self._asked and not self._has_unwritten_bytes()

    def _head_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._answer is None and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(TooManyInterimResponses("too many bytes came before the answer"))

    def _is_repeated(self, message: RawResponseMessage) -> bool:
        """Remember an answer by Signature and Tracer-Id; return whether it came before."""
        tracer_ids, signatures = (
            tuple(value for key, value in message.raw_headers if key.lower() == name)
            for name in (b"tracer-id", b"signature")
        )
        self._has_tracer_id = len(tracer_ids) == 1 and bool(tracer_ids[0].strip())
        if not self._has_tracer_id or not signatures:
            return False
        identity = hash((tracer_ids, signatures))
        repeated = identity in self._seen
        self._seen.append(identity)
        return repeated

    def _refuse(self, error: aiohttp.ClientError) -> None:
        """Close the connection at once; a request that waits for its answer fails with the error."""
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()

    def _has_unwritten_bytes(self) -> bool:
        """Whether bytes of the request are still in this process, not in the kernel."""
        # asyncio's TLS transport does not count what waits in the transport below it, nor name that one.
        below = getattr(getattr(self.transport, "_ssl_protocol", None), "_transport", None)
        transports = filter(None, (self.transport, below))
        return any(transport.get_write_buffer_size() for transport in transports)

    def _may_be_inside_record(self) -> bool:
        """Whether a part of a TLS record was received, or that cannot be known."""
        if self.transport is None or self.transport.get_extra_info("ssl_object") is None:
            return False
        return self._records is None or self._records.is_inside

    def _has_unread_bytes(self) -> bool:
        """Whether the kernel has bytes, or the end of the connection, that were not read yet."""
        if self.transport is None:
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))
