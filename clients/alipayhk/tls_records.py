"""Whether a TLS connection has received a part of a record.

A TLS library hands out the bytes of a record when all of it has come. A record that comes in two parts,
before and after a request, would look like an answer that came after it, so its first part must be seen.
`ssl` does not tell (OpenSSL's SSL_has_pending has no counterpart there), so records are counted here by
their heads, which are never encrypted: https://www.rfc-editor.org/rfc/rfc8446#section-5.1
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

_HEAD_BYTES: Final = 5
"""Kind, version and length; the length is that of what follows."""


class CountedRecords:
    """The buffer of received bytes of one TLS connection: passes them on, and counts the records."""

    def __init__(self, received: ssl.MemoryBIO) -> None:
        self._received = received
        self._head = bytearray()
        self._body_left = 0
        # What came behind the handshake begins with a record: OpenSSL reads no further than it needs.
        self.write(received.read())

    @property
    def is_inside(self) -> bool:
        """Whether a record has begun and is not complete."""
        return bool(self._head or self._body_left)

    def write(self, data: bytes | memoryview) -> int:
        """Pass on what was received."""
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
    """Count the records of a transport from now on; return None where it is not one of asyncio's TLS."""
    protocol: Any = getattr(transport, "_ssl_protocol", None)
    received = getattr(protocol, "_incoming", None)
    if not isinstance(received, ssl.MemoryBIO):
        return None
    protocol._incoming = records = CountedRecords(received)  # noqa: SLF001
    return records
