"""Undo claims whose answers were lost: nothing was sent for them, but their rows may say SENDING."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NamedTuple

from .. import Key, LedgerUnavailable

AGAIN_S: Final = 1.0
TRIES: Final = 3
"""How often the database must have answered that a claim is not there, AGAIN_S apart, to forget it.

A server that was frozen may execute the claim when it continues.
"""
MAX: Final = 10_000
"""The most claims that are kept; a row that is not undone is in doubt after its lease."""


class LostClaim(NamedTuple):
    """A claim that may have been granted, and the random id by which it is undone."""

    key: Key
    linkage: bytes | None
    claim_id: bytes


class LostClaims:
    """Undoes claims by their random ids until the database has answered for each of them."""

    def __init__(self, undo: Callable[[LostClaim], Awaitable[bool]]) -> None:
        self._undo = undo
        self._tries: dict[LostClaim, int] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, lost: LostClaim) -> None:
        """Undo a claim as soon as possible."""
        if len(self._tries) < MAX:
            self._tries[lost] = 0
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Try once more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._try_all()

    async def _run(self) -> None:
        while self._tries:
            await self._try_all()
            await asyncio.sleep(AGAIN_S)

    async def _try_all(self) -> None:
        with suppress(LedgerUnavailable):
            for lost in list(self._tries):
                undone = await self._undo(lost)
                self._tries[lost] += 1
                if undone or self._tries[lost] >= TRIES:
                    del self._tries[lost]
