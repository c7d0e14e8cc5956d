"""The parts of a server that a reload replaces."""

from __future__ import annotations

from typing import Protocol

from ..credentials.callers import Callers
from ..credentials.in_use import InUse
from ..credentials.server_certificate import ServerCertificate
from ..outcomes.result_codes import ResultCodes


class ServerParts(Protocol):
    """What is in use of each."""

    certificate: InUse[ServerCertificate | None]
    callers: InUse[Callers | None]
    codes: InUse[ResultCodes]
