"""Why a signature does not verify, and how a response can be wrong: one file and one row for each protocol.

`wire` seals and unseals correct messages. This package reads requests that do not verify, and writes
responses that are wrong on purpose. The sandbox uses both.
"""

from __future__ import annotations

from typing import Final

from ..wire.endpoint import WireProtocol
from ..wire.protocols.envelope_signed import EnvelopeSigned
from ..wire.protocols.header_signed import HeaderSigned
from . import envelope_signed, header_signed
from .mistakes import Diagnosis

DIAGNOSES: Final[dict[type[WireProtocol], Diagnosis]] = {
    HeaderSigned: header_signed.DIAGNOSIS,
    EnvelopeSigned: envelope_signed.DIAGNOSIS,
}
