"""Endings that the ledger could not take when they came: kept in memory, and written as soon as it can."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from ..ledger import Key, LedgerUnavailable
from ..telemetry.logs import log
from ..telemetry.metrics import Metrics

Write = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True, eq=False)
class _Ending:
    linkage: bytes | None
    write: Write


class PendingWrites:
    """Writes endings, and remembers those that are still to be written."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._endings: dict[Key, _Ending] = {}

    def __len__(self) -> int:
        return len(self._endings)

    def __contains__(self, key: Key) -> bool:
        return key in self._endings

    async def write(self, key: Key, linkage: bytes | None, write: Write) -> None:
        """Write, or remember to: what AlipayHK said stands whether or not the ledger can take it."""
        try:
            if not await write():
                log.warning("an ending came too late to be recorded", request_id=key.request_id)
        except LedgerUnavailable as error:
            self._endings[key] = _Ending(linkage, write)
            self._count()
            log.error("an ending could not be recorded", request_id=key.request_id, cause=str(error))

    async def flush(self) -> None:
        """Write whatever is left, as far as that can be."""
        await self._flush(list(self._endings))

    async def flush_for(self, key: Key, linkage: bytes | None) -> bool:
        """Write what a request or its linkage came to; return whether nothing of that is left.

        What was applied and is not recorded yet would let older news of the linkage pass for newer.
        """
        ours = [
            other
            for other, ending in self._endings.items()
            if other == key or (linkage is not None and ending.linkage == linkage)
        ]
        await self._flush(ours)
        return not any(other in self._endings for other in ours)

    async def _flush(self, keys: Iterable[Key]) -> None:
        # All at once: they share a commit, and one that cannot be written does not hold up the others.
        ends = await asyncio.gather(*map(self._flush_one, keys), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end

    async def _flush_one(self, key: Key) -> None:
        ending = self._endings.get(key)
        if ending is None:
            return
        try:
            if not await ending.write():
                # A person, or another attempt, has decided meanwhile, perhaps against what AlipayHK said.
                log.error("an ending came too late to be recorded", request_id=key.request_id)
        except LedgerUnavailable:
            return
        if self._endings.get(key) is ending:
            del self._endings[key]
        self._count()

    def _count(self) -> None:
        self._metrics.ledger_unrecorded.set(len(self._endings))
