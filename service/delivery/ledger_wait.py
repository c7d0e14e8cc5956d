"""What a call waits for at the ledger: another holder, or the ledger itself; and why it rejects a claim."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from alipayhk.linkage.v1 import error_reason_pb2 as reasons

from ..ledger import ClaimRejected, InProgress, LinkageBusy

POLL_S: Final = 0.25
"""How often to ask again for a request in progress elsewhere, in seconds; its lease is an upper bound."""
POLL_MIN_S: Final = 0.01
REFUSALS: Final = {
    ClaimRejected.IN_DOUBT: reasons.ERROR_REASON_OUTCOME_IN_DOUBT,
    ClaimRejected.STALE: reasons.ERROR_REASON_STALE_BIZ_TIME,
    ClaimRejected.TIE: reasons.ERROR_REASON_BIZ_TIME_TIE,
}


@dataclass(frozen=True, slots=True)
class Busy:
    """The request must wait: it, or another request for its linkage, is in progress elsewhere."""

    answer: InProgress | LinkageBusy
    wait_s: float
    reason: reasons.ErrorReason
    """The reason for callers whose deadlines expire first."""


class LedgerProgress:
    """Knows when the ledger last answered, to distinguish an overloaded one from an unavailable one."""

    def __init__(self) -> None:
        self._answered_s = float("-inf")

    def answered(self) -> None:
        """Note that the ledger answered now."""
        self._answered_s = time.monotonic()

    def reason_since(self, since_s: float) -> reasons.ErrorReason:
        """Return OVERLOADED if the ledger answered other calls in the later half of this wait.

        An answer in the earlier half proves nothing: it may have been in progress when the ledger failed.
        """
        if self._answered_s > (since_s + time.monotonic()) / 2:
            return reasons.ERROR_REASON_OVERLOADED
        return reasons.ERROR_REASON_LEDGER_UNAVAILABLE
