"""Why a call whose deadline expired while it waited for the ledger was not answered by it."""

from __future__ import annotations

import time

from alipayhk.linkage.v1 import error_reason_pb2 as reasons


class LedgerProgress:
    """Knows when the ledger last answered a claim or a look-up."""

    def __init__(self) -> None:
        self._answered_s = float("-inf")

    def answered(self) -> None:
        """Note that the ledger has just answered."""
        self._answered_s = time.monotonic()

    def reason_since(self, since_s: float) -> reasons.ErrorReason:
        """Return OVERLOADED if the ledger answered others in the later half of this wait.

        In the earlier half it may still have finished what it had begun before it became unavailable.
        """
        if self._answered_s > (since_s + time.monotonic()) / 2:
            return reasons.ERROR_REASON_OVERLOADED
        return reasons.ERROR_REASON_LEDGER_UNAVAILABLE
