"""Values that are replaced while the gateway runs: keys, the certificate, callers and result codes.

Each attempt at AlipayHK, each TLS handshake and each call reads the value when it needs it, and keeps what
it has read. So a replacement takes effect for the next attempt, the next connection and the next call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(slots=True)
class InUse(Generic[Value]):
    """Holds the value in use.

    Reading and replacing are single assignments, so any thread can do them; gRPC reads the certificate in a
    thread of its own.
    """

    current: Value
