"""A ledger that notes when the ledger behind it is unavailable, and when it has recovered."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from ..ledger import (
    Answer,
    Claim,
    Ending,
    InDoubt,
    InProgress,
    Key,
    Ledger,
    LedgerUnavailable,
    LinkageBusy,
    Row,
)
from ..telemetry.logs import log
from ..telemetry.metrics import Metrics

QUIET_S: Final = 10.0
"""How long, in seconds, no operation may have failed before the ledger counts as recovered.

A success proves little: on a full disk every write fails and every read succeeds.
"""
LOG_BYTES_MAX: Final = 64 << 20
"""The size of a write-ahead log beyond which a reader must be keeping it from being reused."""
FORGOTTEN_READER: Final = "another program has had the ledger's file open in one read since; end it"
_NO_REQUEST: Final = Key("", "", "")


class LedgerMonitor:
    """Wraps the ledger. Logs one error when an outage starts and one line when it is over; sets a gauge."""

    def __init__(
        self, ledger: Ledger, metrics: Metrics, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self.outlives_process: bool = ledger.outlives_process
        self._usable = metrics.ledger_usable
        self._now_s = now_s
        self._metric_log_bytes = metrics.ledger_log_bytes
        self._log_is_large = False
        self._failed_s: float | None = None
        self._usable.set(1)

    @property
    def log_bytes(self) -> int:
        """Return what the ledger behind it says."""
        return self._ledger.log_bytes

    def failed(self, cause: str) -> None:
        """Note that an operation failed."""
        if self._failed_s is None:
            self._usable.set(0)
            log.error("ledger unavailable", cause=cause)
        self._failed_s = self._now_s()

    def worked(self) -> None:
        """Note that the ledger answered: it has recovered if nothing has failed for QUIET_S."""
        if self._failed_s is not None and self._now_s() - self._failed_s > QUIET_S:
            self._failed_s = None
            self._usable.set(1)
            log.info("ledger recovered")

    async def probe(self) -> None:
        """Open a write transaction, write nothing: it fails if the file is gone, replaced or locked."""
        self._watch_log()
        await self.undo(_NO_REQUEST, 0, 0)

    def _watch_log(self) -> None:
        """Report the size of the write-ahead log; log once that it is large, and once that it is not."""
        size = self.log_bytes
        self._metric_log_bytes.set(size)
        if (size > LOG_BYTES_MAX) == self._log_is_large:
            return
        self._log_is_large = not self._log_is_large
        if self._log_is_large:
            log.warning("write-ahead log of the ledger too large", cause=FORGOTTEN_READER, count=size)
        else:
            log.info("write-ahead log of the ledger reused", count=size)

    async def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Claim."""
        try:
            return await self._ledger.claim(claim, now_ms)
        except LedgerUnavailable as error:
            self.failed(str(error))
            raise

    async def look(self, claim: Claim, now_ms: int) -> Answer:
        """Look up."""
        try:
            return await self._ledger.look(claim, now_ms)
        except LedgerUnavailable as error:
            self.failed(str(error))
            raise

    async def queue(self, claim: Claim) -> None:
        """Queue."""
        try:
            await self._ledger.queue(claim)
        except LedgerUnavailable as error:
            self.failed(str(error))
            raise

    def leave(self, key: Key) -> None:
        """Leave."""
        self._ledger.leave(key)

    async def wait(self, answer: InProgress | LinkageBusy, timeout_s: float) -> None:
        """Wait."""
        await self._ledger.wait(answer, timeout_s)

    async def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Renew."""
        try:
            return await self._ledger.renew(key, token, lease_ms, now_ms)
        except LedgerUnavailable as error:
            self.failed(str(error))
            raise

    async def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Extend."""
        try:
            return await self._ledger.extend(key, token, lease_ms, now_ms)
        except LedgerUnavailable as error:
            self.failed(str(error))
            raise

    async def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Record."""
        try:
            return await self._ledger.record(key, token, ending, now_ms)
        except LedgerUnavailable as error:
            self.failed(str(error))
            raise

    async def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Undo."""
        try:
            return await self._ledger.undo(key, token, now_ms)
        except LedgerUnavailable as error:
            self.failed(str(error))
            raise

    async def find(self, request_id: str) -> Sequence[Row]:
        """Find."""
        try:
            return await self._ledger.find(request_id)
        except LedgerUnavailable as error:
            self.failed(str(error))
            raise

    async def resolve(self, key: Key, ending: Ending, *, who: str, why: str, now_ms: int) -> bool:
        """Resolve."""
        try:
            return await self._ledger.resolve(key, ending, who=who, why=why, now_ms=now_ms)
        except LedgerUnavailable as error:
            self.failed(str(error))
            raise

    async def rows(
        self, *, since_ms: int = 0, after: int = 0, in_doubt_at_ms: int | None = None
    ) -> AsyncIterator[Row]:
        """Iterate over rows."""
        try:
            rows = self._ledger.rows(since_ms=since_ms, after=after, in_doubt_at_ms=in_doubt_at_ms)
            async for row in rows:
                yield row
        except LedgerUnavailable as error:
            self.failed(str(error))
            raise

    async def in_doubt(self, now_ms: int) -> Sequence[InDoubt]:
        """Count those in doubt. If that takes too long, requests can still be served."""
        return await self._ledger.in_doubt(now_ms)

    async def drop(self, *, before_ms: int, now_ms: int) -> int:
        """Drop old results."""
        try:
            return await self._ledger.drop(before_ms=before_ms, now_ms=now_ms)
        except LedgerUnavailable as error:
            self.failed(str(error))
            raise

    async def close(self) -> Sequence[Key]:
        """Close."""
        return await self._ledger.close()
