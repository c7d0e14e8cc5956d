"""Keep the places of the requests that wait in this gateway for their linkages, for as long as they wait.

A place counts for PLACE_MS, so that a gateway that is gone does not block the others for long. A request
may wait for much longer, and behind others of its gateway it asks the database nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from .. import Claim, Key, LedgerUnavailable

PLACE_MS: Final = 3000
"""How long a place counts after it was kept last."""
KEEP_EVERY_S: Final = 1.0


class Places:
    """The places of this gateway; a task keeps them while there are any."""

    def __init__(
        self, write: Callable[[Sequence[Claim]], Awaitable[Any]], leave: Callable[[Key], None]
    ) -> None:
        self._write = write
        self._leave = leave
        self._claims: dict[Key, Claim] = {}
        self._task: asyncio.Task[None] | None = None

    def keep(self, claim: Claim) -> None:
        """Keep the place of a request that waits."""
        self._claims[claim.key] = claim
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def drop(self, key: Key) -> None:
        """Keep a place no longer."""
        self._claims.pop(key, None)

    async def close(self) -> None:
        """Keep no place any more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            if not self._claims:
                return
            claims = list(self._claims.values())
            with suppress(LedgerUnavailable):
                await self._write(claims)
            for key in [claim.key for claim in claims if claim.key not in self._claims]:
                self._leave(key)  # it stopped waiting while its place was written
