"""Wake the calls that wait for a request or a linkage, when another gateway's notification says so."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from typing import Final, NamedTuple

REMEMBERED: Final = 1024
"""How many notifications are remembered for calls that are about to wait."""


class Place(NamedTuple):
    """What a call waits for, and how many notifications had been heard before it asked."""

    lock: str
    """The number of a lock, as notifications have it."""
    heard: int


class Wakeups:
    """Futures by the number of the lock that they wait for."""

    def __init__(self) -> None:
        self.count = 0
        """Notifications heard until now."""
        self._lost_at = 0
        self._heard_at: dict[str, int] = {}
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)

    def heard(self, text: str | None) -> None:
        """Wake those who wait for a lock, or everybody if notifications may have been lost."""
        self.count += 1
        if text is None:
            self._lost_at = self.count
            woken = [future for futures in self._waiting.values() for future in futures]
        else:
            self._heard_at.pop(text, None)
            self._heard_at[text] = self.count
            if len(self._heard_at) > REMEMBERED:
                del self._heard_at[next(iter(self._heard_at))]
            woken = list(self._waiting.get(text, ()))
        for future in woken:
            if not future.done():
                future.set_result(None)

    async def wait(self, place: Place, timeout_s: float) -> None:
        """Wait until a notification after the call's question names its lock, or for so many seconds."""
        if max(self._lost_at, self._heard_at.get(place.lock, 0)) > place.heard:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[place.lock].add(future)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await future
        finally:
            self._waiting[place.lock].discard(future)
            if not self._waiting[place.lock]:
                del self._waiting[place.lock]
