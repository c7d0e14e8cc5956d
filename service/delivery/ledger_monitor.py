"""Whether the ledger can be used: found out from calls and by asking it, and told to operators once."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from google.protobuf.message import Message

from alipayhk.linkage.v1 import error_reason_pb2 as reasons

from ..ledger import Key, Ledger
from ..ledger.vault import Vault
from ..outcomes.refusal import Refusal
from ..telemetry.logs import log
from ..telemetry.metrics import Metrics
from .flight import Flight
from .ledger_session import Busy, LedgerSession

QUIET_S: Final = 10.0
"""How long nothing must have failed: a disk that is full fails what is written, and nothing else."""
_NOBODYS: Final = Key("", "", "")


class LedgerWatch:
    """Says when the ledger cannot be used, and when it can again: a line in the log each, and a gauge."""

    def __init__(self, metrics: Metrics, now_s: Callable[[], float] = time.monotonic) -> None:
        self._usable = metrics.ledger_usable
        self._now_s = now_s
        self._failed_s: float | None = None
        self._usable.set(1)

    def failed(self, cause: str) -> None:
        """Take note that something could not be done with it."""
        if self._failed_s is None:
            self._usable.set(0)
            log.error("the ledger cannot be used", cause=cause)
        self._failed_s = self._now_s()

    def worked(self) -> None:
        """Take note that it answers, which is not to say that it can be written."""
        if self._failed_s is not None and self._now_s() - self._failed_s > QUIET_S:
            self._failed_s = None
            self._usable.set(1)
            log.info("the ledger can be used again")


class WatchedBookkeeping(LedgerSession):
    """Bookkeeping that takes note of every call for which the ledger could not be used."""

    def __init__(self, ledger: Ledger, vault: Vault, metrics: Metrics, **options: Any) -> None:
        super().__init__(ledger, vault, metrics, **options)
        self.watch = LedgerWatch(metrics)

    async def look(self, flight: Flight) -> Message | Busy | None:
        """Look as Bookkeeping does."""
        return await self._watched(super().look(flight))

    async def claim(self, flight: Flight) -> Message | Busy | None:
        """Claim as Bookkeeping does."""
        meaning = await self._watched(super().claim(flight))
        if meaning is None and not flight.token:
            self.watch.failed("SyncLinkage goes on without it")
        return meaning

    async def ask(self) -> None:
        """Begin to write, and write nothing: it fails where the file is gone, replaced or locked."""
        await self._ledger.undo(_NOBODYS, 0, 0)

    async def _watched(self, asked: Awaitable[Message | Busy | None]) -> Message | Busy | None:
        try:
            return await asked
        except Refusal as refusal:
            if refusal.reason == reasons.ERROR_REASON_LEDGER_UNAVAILABLE:
                self.watch.failed(str(refusal))
            raise
