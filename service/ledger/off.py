"""The ledger that remembers nothing: every request is new to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, Final

from . import Answer, Claim, Ending, Key, Row
from .rules import Linkage, answer_to

ONLY_TOKEN: Final = 1
"""There is nothing to fence off."""


class OffLedger:
    """Refuses a biz_time in the future, and grants everything else."""

    outlives_crash: ClassVar[bool] = False

    async def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Answer as to a request never seen before."""
        return answer_to(claim, None, Linkage(), now_ms, token=ONLY_TOKEN)

    async def look(self, claim: Claim, now_ms: int) -> Answer:
        """Answer as `claim` does."""
        return await self.claim(claim, now_ms)

    async def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Let another attempt be sent."""
        return True

    async def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Let the attempt take longer."""
        return True

    async def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Forget what came of it."""
        return True

    async def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Take back what was never written."""
        return True

    async def find(self, request_id: str) -> Sequence[Row]:
        """Know nothing."""
        return ()

    async def resolve(self, key: Key, ending: Ending, *, who: str, why: str, now_ms: int) -> bool:
        """Know of no doubt."""
        return False

    async def rows(self, *, since_ms: int = 0, in_doubt_at_ms: int | None = None) -> AsyncIterator[Row]:
        """Go through nothing."""
        nothing: tuple[Row, ...] = ()
        for row in nothing:
            yield row

    async def drop(self, *, before_ms: int, now_ms: int) -> int:
        """Have nothing to forget."""
        return 0

    async def close(self) -> None:
        """Have nothing to finish."""
