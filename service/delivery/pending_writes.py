"""Results that could not be written because the ledger was unavailable.

They are kept in memory and written when the ledger has recovered. A crash loses them: their rows are then
in doubt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from ..ledger import Key, LedgerUnavailable
from ..telemetry.logs import log
from ..telemetry.metrics import Metrics

Write = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    linkage: bytes | None
    write: Write


class PendingWrites:
    """Writes results to the ledger, and keeps those that it could not write."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._pending: dict[Key, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, key: Key) -> bool:
        return key in self._pending

    async def write(self, key: Key, linkage: bytes | None, write: Write) -> None:
        """Write a result, or keep it for later: it is final even if the ledger cannot record it now."""
        try:
            if not await write():
                log.warning("result not recorded: claim lost", request_id=key.request_id)
        except LedgerUnavailable as error:
            self._pending[key] = _Pending(linkage, write)
            self._count()
            log.error("result not recorded yet", request_id=key.request_id, cause=str(error))

    async def flush(self) -> None:
        """Try to write every pending result."""
        await self._flush(list(self._pending))

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
        results = await asyncio.gather(*map(self._flush_one, keys), return_exceptions=True)
        for result in results:
            if result is not None:
                raise result

    async def _flush_one(self, key: Key) -> None:
        pending = self._pending.get(key)
        if pending is None:
            return
        try:
            if not await pending.write():
                # An operator or another attempt has recorded a result since, perhaps a different one.
                log.error("result not recorded: claim lost", request_id=key.request_id)
        except LedgerUnavailable:
            return
        if self._pending.get(key) is pending:
            del self._pending[key]
        self._count()

    def _count(self) -> None:
        self._metrics.ledger_unrecorded.set(len(self._pending))
