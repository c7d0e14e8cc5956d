"""Undo claims whose answers were lost: nothing was sent for them, but their rows may say SENDING."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from .. import Key, LedgerUnavailable
from ..errors import LedgerBusy

AGAIN_S: Final = 1.0
CLOSE_S: Final = 1.0
MAX: Final = 10_000
"""The most claims that are kept; a row that is not undone is in doubt after its lease."""


class LostClaim(NamedTuple):
    """A claim that may have been granted, and the random id by which it is undone."""

    key: Key
    linkage: bytes | None
    claim_id: bytes


class LostClaims:
    """Undoes claims by their random ids, once the database answers."""

    def __init__(self, undo: Callable[[LostClaim], Awaitable[object]]) -> None:
        self._undo = undo
        self._claims: dict[LostClaim, None] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, lost: LostClaim) -> None:
        """Undo a claim as soon as possible."""
        if len(self._claims) < MAX:
            self._claims[lost] = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> Sequence[Key]:
        """Try for CLOSE_S more; return the requests whose claims may be left."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._run(CLOSE_S / 10)
        return [lost.key for lost in self._claims]

    async def _run(self, again_s: float = AGAIN_S) -> None:
        while self._claims:
            await self._try_all()
            await asyncio.sleep(again_s)

    async def _try_all(self) -> None:
        for lost in list(self._claims):
            try:
                await self._undo(lost)
            except LedgerBusy:
                continue  # only its linkage is locked
            except LedgerUnavailable:
                break
            del self._claims[lost]
