"""One request per linkage at a time in this process; the others wait, the oldest biz_time first."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count


@dataclass(order=True)
class _Waiting:
    biz_time_ms: int
    arrival: int
    turn: asyncio.Future[None] = field(compare=False)


class LinkageQueue:
    """Who is next, per linkage."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, list[_Waiting]] = {}
        self._arrivals = count()

    def is_taken(self, linkage: Hashable) -> bool:
        """Whether a request for this linkage is under way."""
        return linkage in self._waiting

    @asynccontextmanager
    async def take(self, linkage: Hashable | None, biz_time_ms: int | None) -> AsyncIterator[None]:
        """Wait for the turn; None needs none."""
        if linkage is None:
            yield
            return
        if linkage in self._waiting:
            await self._wait(linkage, biz_time_ms or 0)
        else:
            self._waiting[linkage] = []
        try:
            yield
        finally:
            self._next(linkage)

    async def _wait(self, linkage: Hashable, biz_time_ms: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting[linkage], _Waiting(biz_time_ms, next(self._arrivals), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next(linkage)
            raise

    def _next(self, linkage: Hashable) -> None:
        """Give the turn to the next one that is still waiting."""
        waiting = self._waiting[linkage]
        while waiting:
            turn = heapq.heappop(waiting).turn
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[linkage]
