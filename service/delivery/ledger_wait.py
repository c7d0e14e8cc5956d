"""Distinguish an overloaded ledger from an unavailable one, for calls that expire while they wait."""

from __future__ import annotations

import time

from alipayhk.linkage.v1 import error_reason_pb2 as reasons


class LedgerProgress:
    """Knows when the ledger last answered a claim or a look-up."""

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
