"""Results that could not be written because the ledger was unavailable.

They are kept in memory and written when the ledger has recovered. A crash loses them: their rows are then
in doubt, although callers may have got the result. So a result that fails because the ledger is busy is
retried until the deadline of the calls that wait for it, and only then returned without its record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ..ledger import Key, LedgerUnavailable
from ..ledger.errors import LedgerBusy
from ..telemetry.logs import log
from ..telemetry.metrics import Metrics
from .flight import Flight

Write = Callable[[int], Awaitable[bool]]
"""Writes a result at a time in milliseconds; returns whether the claim still held."""
FLUSH_TIMEOUT_S: Final = 3.0
"""How long the shutdown waits for the pending results, in seconds."""
RETRY_EVERY_S: Final = 0.05
"""The pause between two attempts to write to a busy ledger, in seconds; each attempt also waits itself."""


@dataclass(slots=True, eq=False)
class _Pending:
    linkage: bytes | None
    write: Write
    is_held: bool = True
    """Whether the claim still held when it was written last."""
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    """A second `undo` after a successful one would look as if the claim had been lost."""


class PendingWrites:
    """Writes results to the ledger, and keeps those that it could not write."""

    def __init__(self, metrics: Metrics, now_ms: Callable[[], int]) -> None:
        self._metrics = metrics
        self._now_ms = now_ms
        self._pending: dict[Key, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, key: Key) -> bool:
        return key in self._pending

    async def write(self, flight: Flight, write: Write, *, retry: bool) -> bool:
        """Write a flight's result, or keep it for later: it is final even if it cannot be recorded now.

        With `retry`, and if the ledger is busy, try again until the deadline of the flight's calls. Return
        False if its claim is lost: another attempt or an operator has overtaken it.
        """
        key = flight.request.key
        try:
            is_held = await write(self._now_ms())
            if not is_held:
                log.warning("result not recorded: claim lost", request_id=key.request_id)
        except LedgerUnavailable as error:
            pending = self._pending[key] = _Pending(flight.linkage, write)
            self._count()
            if retry and isinstance(error, LedgerBusy):
                await self._retry(flight, pending)
            if self._pending.get(key) is pending:
                log.error("result not recorded yet", request_id=key.request_id, cause=str(error))
            is_held = pending.is_held
        return is_held

    async def _retry(self, flight: Flight, pending: _Pending) -> None:
        key = flight.request.key
        while self._pending.get(key) is pending and (left_s := flight.left_s) > 0:
            await asyncio.sleep(min(RETRY_EVERY_S, left_s))
            await self._flush_one(key)

    async def flush(self) -> None:
        """Try to write every pending result."""
        await self._flush(list(self._pending))

    async def close(self) -> None:
        """Try to write every pending result, for a limited time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await self.flush()
        if self._pending:
            log.error("results lost at shutdown", count=len(self._pending))

    async def flush_for(self, key: Key, linkage: bytes | None) -> bool:
        """Try to write the pending results of a request and its linkage; return whether none remains.

        If an applied request is not recorded, an older one for its linkage could be sent after it.
        """
        ours = [
            other
            for other, pending in self._pending.items()
            if other == key or (linkage is not None and pending.linkage == linkage)
        ]
        await self._flush(ours)
        return not any(other in self._pending for other in ours)

    async def _flush(self, keys: Iterable[Key]) -> None:
        # Concurrently: they share a commit, and one that cannot be written does not block the others.
        await asyncio.gather(*map(self._flush_one, keys))

    async def _flush_one(self, key: Key) -> None:
        pending = self._pending.get(key)
        if pending is None:
            return
        async with pending.one_at_a_time:
            if self._pending.get(key) is not pending:
                return
            try:
                pending.is_held = await pending.write(self._now_ms())
                if not pending.is_held:
                    # An operator or another attempt has recorded a result since, perhaps a different one.
                    log.error("result not recorded: claim lost", request_id=key.request_id)
            except LedgerUnavailable:
                return
            if self._pending.get(key) is pending:
                del self._pending[key]
            self._count()

    def _count(self) -> None:
        self._metrics.ledger_unrecorded.set(len(self._pending))
