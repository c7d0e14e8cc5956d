"""Find out whether a TLS connection has received part of a record.

A TLS library returns the bytes of a record only when the whole record was received. If a record arrives in
two parts, one before and one after a request, it looks like a response that was received after the request.
To notice the first part, this module counts records by their headers, which are never encrypted:
https://www.rfc-editor.org/rfc/rfc8446#section-5.1. Python's `ssl` has no counterpart of OpenSSL's
SSL_has_pending, which would report it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any, Final

_HEAD_BYTES: Final = 5
"""Size of a record's header: type, version, and the length of the body after it."""


class CountedRecords:
    """Replaces the buffer of received bytes of one TLS connection, and counts its records."""

    def __init__(self, received: ssl.MemoryBIO) -> None:
        self._received = received
        self._head = bytearray()
        self._body_left = 0
        # Bytes after the handshake start at a record boundary, because OpenSSL reads only what it needs.
        self.write(received.read())

    @property
    def is_inside(self) -> bool:
        """Whether a record is incomplete."""
        return bool(self._head or self._body_left)

    def write(self, data: bytes | memoryview) -> int:
        """Count the records in `data`, and pass it on."""
        if not self.is_inside and len(data) == _HEAD_BYTES + int.from_bytes(data[3:_HEAD_BYTES]):
            return self._received.write(data)  # one whole record: nearly always
        at = 0
        while at < len(data):
            if self._body_left:
                taken = min(self._body_left, len(data) - at)
                self._body_left -= taken
            else:
                taken = min(_HEAD_BYTES - len(self._head), len(data) - at)
                self._head += data[at : at + taken]
                if len(self._head) == _HEAD_BYTES:
                    self._body_left = int.from_bytes(self._head[3:])
                    self._head.clear()
            at += taken
        return self._received.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._received, name)


def count_records(transport: asyncio.BaseTransport) -> CountedRecords | None:
    """Start to count the records of a transport; return None if it is not an asyncio TLS transport."""
    protocol: Any = getattr(transport, "_ssl_protocol", None)
    received = getattr(protocol, "_incoming", None)
    if not isinstance(received, ssl.MemoryBIO):
        return None
    protocol._incoming = records = CountedRecords(received)  # noqa: SLF001
    return records


def acknowledge_at_once(transport: asyncio.Transport | None) -> None:
    """Let the system acknowledge received bytes without its delay of 40 ms; call this after a write.

    In TLS 1.3 a server sends session tickets after the handshake. Without TCP_NODELAY, it does not
    send its response before they are acknowledged.
    """
    if transport is not None and (connection := transport.get_extra_info("socket")) is not None:
        with suppress(OSError):  # the connection is lost; reading says so
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
