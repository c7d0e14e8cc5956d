"""Why a signature does not verify: pure functions from a message and keys to a diagnosis.

`claims` reads a message. `signature` finds the key that made its signature; that key recovers the digest
of the content that was signed. A hypothesis (`drafts`) is a mistake that changes the content; `search`
applies each one, and each pair, until a content has exactly that digest. `diagnose` says what was found,
and names no cause that is not proven.

Each protocol has one file and one row here. The row also says how a response can be wrong on purpose,
which the sandbox uses. `wire` seals and unseals correct messages.
"""

from __future__ import annotations

from typing import Final

from ..wire.endpoint import WireProtocol
from ..wire.protocols.envelope_signed import EnvelopeSigned
from ..wire.protocols.header_signed import HeaderSigned
from . import envelope_signed, header_signed
from .protocol_row import ProtocolRow

ROWS: Final[dict[type[WireProtocol], ProtocolRow]] = {
    HeaderSigned: header_signed.ROW,
    EnvelopeSigned: envelope_signed.ROW,
}
