"""Wait for a future for a limited time, without cancelling it."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from itertools import count
from typing import Any, Final

EARLY_S: Final = 1e-6
"""How long before its deadline a future may be done: sums of floats are not exact."""
CLEAN_MIN: Final = 1000
"""The least number of futures before those that are done are removed."""


class Deadlines:
    """Makes futures that are done at their deadlines, with one timer for all of them.

    Nearly all of them are done long before. The event loop's timers cost several times as much.
    """

    def __init__(self) -> None:
        self._futures: list[tuple[float, int, asyncio.Future[None]]] = []
        """A heap of deadlines, arrivals and futures."""
        self._arrivals = count()
        self._clean_at = CLEAN_MIN
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def future(self, deadline: float) -> asyncio.Future[None]:
        """Return a future that is done at a time on the monotonic clock, if it is not done before."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._futures, (deadline, next(self._arrivals), future))
        if deadline < self._timer_at:
            self._set_timer(deadline)
        if len(self._futures) >= self._clean_at:
            self._futures = [entry for entry in self._futures if not entry[2].done()]
            heapq.heapify(self._futures)
            self._clean_at = 2 * len(self._futures) + CLEAN_MIN
        return future

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait_s = max(deadline - time.monotonic(), 0.0)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._expire)
        self._timer_at = deadline

    def _expire(self) -> None:
        now_s = time.monotonic() + EARLY_S
        while self._futures and (self._futures[0][0] <= now_s or self._futures[0][2].done()):
            future = heapq.heappop(self._futures)[2]
            if not future.done():
                future.set_result(None)
        self._timer, self._timer_at = None, math.inf
        if self._futures:
            self._set_timer(self._futures[0][0])


async def wait_for_end(future: asyncio.Future[Any], timeout_s: float) -> None:
    """Return when a future is done and its earlier callbacks have run, or after so many seconds.

    `asyncio.wait` does the same for many futures, at three times the cost.
    """
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_later(max(timeout_s, 0.0), wake)
    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        timer.cancel()
        future.remove_done_callback(wake)
