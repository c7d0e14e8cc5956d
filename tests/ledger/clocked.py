"""A ledger whose clock shows the time that each operation gives, or another one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from service.ledger import Row
from service.ledger.memory import MemoryLedger
from service.ledger.postgres.ledger import PostgresLedger
from service.ledger.sqlite.ledger import SqliteLedger

SET_CLOCK: Final = "UPDATE test_clock SET ms = $1"
CLOCK: Final = """
    CREATE TABLE test_clock (ms bigint NOT NULL);
    INSERT INTO test_clock VALUES (0);
    CREATE OR REPLACE FUNCTION alipayhk_clock_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
        'SELECT ms FROM test_clock';
"""


class AtTestTime:
    """Sets the clock of a ledger, and that of its database, before each operation."""

    def __init__(self, ledger: MemoryLedger | SqliteLedger | PostgresLedger) -> None:
        self._ledger: Any = ledger
        self._now_ms = 0
        self.clock_ms: int | None = None
        """The time inside the transactions; None if it is that of the operation."""
        if isinstance(ledger, PostgresLedger):
            ledger._now_ms = lambda: self._now_ms
        else:
            clocked = ledger if isinstance(ledger, MemoryLedger) else ledger._writer._tables
            clocked._clock_ms = lambda: self._now_ms

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def _at(self, now_ms: int) -> Any:
        self._now_ms = now_ms if self.clock_ms is None else self.clock_ms
        if isinstance(self._ledger, PostgresLedger):
            await self._ledger._database.value(SET_CLOCK, self._now_ms)
        return self._ledger

    async def claim(self, claim: Any, now_ms: int) -> Any:
        return await (await self._at(now_ms)).claim(claim, now_ms)

    async def look(self, claim: Any, now_ms: int) -> Any:
        return await (await self._at(now_ms)).look(claim, now_ms)

    async def renew(self, key: Any, token: int, lease_ms: int, now_ms: int) -> Any:
        return await (await self._at(now_ms)).renew(key, token, lease_ms, now_ms)

    async def extend(self, key: Any, token: int, lease_ms: int, now_ms: int) -> Any:
        return await (await self._at(now_ms)).extend(key, token, lease_ms, now_ms)

    async def record(self, key: Any, token: int, ending: Any, now_ms: int) -> Any:
        return await (await self._at(now_ms)).record(key, token, ending, now_ms)

    async def undo(self, key: Any, token: int, now_ms: int) -> Any:
        return await (await self._at(now_ms)).undo(key, token, now_ms)

    async def resolve(self, key: Any, ending: Any, *, who: str, why: str, now_ms: int) -> Any:
        return await (await self._at(now_ms)).resolve(key, ending, who=who, why=why, now_ms=now_ms)

    async def in_doubt(self, now_ms: int) -> Any:
        return await (await self._at(now_ms)).in_doubt(now_ms)

    async def rows(
        self, *, since_ms: int = 0, after: int = 0, in_doubt_at_ms: int | None = None
    ) -> AsyncIterator[Row]:
        ledger = await self._at(self._now_ms if in_doubt_at_ms is None else in_doubt_at_ms)
        async for row in ledger.rows(since_ms=since_ms, after=after, in_doubt_at_ms=in_doubt_at_ms):
            yield row
