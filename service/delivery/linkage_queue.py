"""Queue the requests of this process for each linkage: one at a time, the oldest biz_time first."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import count


@dataclass(order=True)
class _Waiting:
    biz_time_ms: int
    arrival: int
    first: asyncio.Future[None] = field(compare=False)


class LinkageQueue:
    """One queue for each linkage with a request in flight."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, list[_Waiting]] = {}
        self._arrivals = count()

    def is_taken(self, linkage: Hashable) -> bool:
        """Return whether a request for this linkage is in flight."""
        return linkage in self._waiting

    def take(self, linkage: Hashable | None) -> bool:
        """Take the linkage if no request for it is in flight; return False if this request must wait.

        Without a linkage there is no queue.
        """
        if linkage in self._waiting:
            return False
        if linkage is not None:
            self._waiting[linkage] = []
        return True

    def leave(self, linkage: Hashable | None) -> None:
        """Let the next request start; call this once after each `take` or `wait` that succeeded."""
        if linkage is not None:
            self._next(linkage)

    def has_older(self, linkage: Hashable, biz_time_ms: int) -> bool:
        """Return whether an older request waits for this linkage."""
        waiting = self._waiting.get(linkage, ())
        return any(other.biz_time_ms < biz_time_ms and not other.first.done() for other in waiting)

    async def wait(self, linkage: Hashable, biz_time_ms: int, *, gives_way: bool = False) -> None:
        """Wait until this request is first in the queue of a linkage that another one has taken.

        With `gives_way`, this request has taken it, and lets the oldest one that waits go first.
        """
        first = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting[linkage], _Waiting(biz_time_ms, next(self._arrivals), first))
        if gives_way:
            self._next(linkage)
        try:
            await first
        except asyncio.CancelledError:
            if first.done() and not first.cancelled():
                self._next(linkage)
            raise

    def _next(self, linkage: Hashable) -> None:
        """Let the next request that still waits start."""
        waiting = self._waiting[linkage]
        while waiting:
            first = heapq.heappop(waiting).first
            if not first.done():
                first.set_result(None)
                return
        del self._waiting[linkage]
