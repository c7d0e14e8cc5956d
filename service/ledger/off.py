"""The ledger that records nothing: every request is new to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, Final

from . import Answer, Claim, Ending, InDoubt, InProgress, Key, LinkageBusy, Row
from .rules import NO_OTHERS, answer_to

ONLY_TOKEN: Final = 1
"""No holder is ever fenced off, so all grants have the same token."""


class OffLedger:
    """Rejects a biz_time in the future, and grants every other claim."""

    outlives_process: ClassVar[bool] = False

    @property
    def log_bytes(self) -> int:
        """Return 0: there is no log."""
        return 0

    async def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Answer as for a new request."""
        return answer_to(claim, None, NO_OTHERS, now_ms, token=ONLY_TOKEN)

    async def look(self, claim: Claim, now_ms: int) -> Answer:
        """Answer as `claim` does."""
        return await self.claim(claim, now_ms)

    async def queue(self, claim: Claim) -> None:
        """Do nothing: requests wait in the order of their arrival at the ledger."""

    def leave(self, key: Key) -> None:
        """Do nothing."""

    async def wait(self, answer: InProgress | LinkageBusy, timeout_s: float) -> None:
        """Return at once: no answer makes a call wait."""

    async def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Allow another attempt."""
        return True

    async def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Allow more time."""
        return True

    async def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Accept the outcome without recording it."""
        return True

    async def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Succeed: there is nothing to undo."""
        return True

    async def find(self, request_id: str) -> Sequence[Row]:
        """Return no rows."""
        return ()

    async def resolve(self, key: Key, ending: Ending, *, who: str, why: str, now_ms: int) -> bool:
        """Return False: no request is in doubt."""
        return False

    async def rows(
        self, *, since_ms: int = 0, after: int = 0, in_doubt_at_ms: int | None = None
    ) -> AsyncIterator[Row]:
        """Yield no rows."""
        nothing: tuple[Row, ...] = ()
        for row in nothing:
            yield row

    async def in_doubt(self, now_ms: int) -> Sequence[InDoubt]:
        """Return nothing: no request is in doubt."""
        return ()

    async def drop(self, *, before_ms: int, now_ms: int) -> int:
        """Return 0: there is nothing to delete."""
        return 0

    async def close(self) -> Sequence[Key]:
        """Do nothing."""
        return ()
