"""The `Ledger` port on a PostgreSQL database. See the package for its theory of operation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from .. import Answer, Claim, Ending, Granted, InDoubt, InProgress, Key, LedgerUnavailable, LinkageBusy, Row
from ..lease import LEASE_MAX_MS, WALL_CLOCK
from ..marker import MarkerKeeper
from ..rules import COUNTED_MAX, MARK_EVERY_MS
from ..vault import RandomBytes
from . import statements
from .database import Calls
from .lost_claims import LostClaim, LostClaims
from .places import PLACE_MS, Places
from .rows import Decided, Facts, claim_parameters, key_parameters, row_of
from .wakeups import Wakeups

CLAIM_ID_BYTES: Final = 16
PAGE_ROWS: Final = 500
DROP_ROWS: Final = 200
"""Maximum number of rows that one transaction deletes, so that claims are not delayed."""

T = TypeVar("T")


class PostgresLedger:
    """Calls one function of the schema for each operation."""

    outlives_process: ClassVar[bool] = True

    def __init__(
        self,
        database: Calls,
        key_id: str,
        *,
        random_bytes: RandomBytes,
        holder: bytes,
        keeper: MarkerKeeper | None = None,
        now_ms: Callable[[], int] = WALL_CLOCK.now_ms,
    ) -> None:
        self._database = database
        self._claim_parameters = partial(claim_parameters, key_id=key_id, holder=holder)
        self._random_bytes = random_bytes
        self._holder = holder
        self._keeper = keeper
        self._now_ms = now_ms
        self._wakeups = Wakeups()
        self._lost = LostClaims(self._undo_claim)
        self._places = Places(self._keep_places, self._leave)
        self._writing: set[asyncio.Task[Any]] = set()

    @property
    def log_bytes(self) -> int:
        """Return 0: the database takes care of its log."""
        return 0

    async def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Answer by the rules, and write a grant."""
        claim_id = self._random_bytes(CLAIM_ID_BYTES)
        lost = LostClaim(claim.key, claim.linkage, claim_id)
        self._database.listen(self._wakeups.heard)
        asking = self._complete(self._claim(claim, claim_id, now_ms))
        try:
            answer = await asyncio.shield(asking)
        except asyncio.CancelledError:
            # Its caller did not get the grant, so nothing was sent.
            asking.add_done_callback(lambda _: self._lost.add(lost))
            raise
        except LedgerUnavailable:
            self._lost.add(lost)
            raise
        if isinstance(answer, (InProgress, LinkageBusy)):
            self._places.keep(claim)
        else:
            self._places.drop(claim.key)
        return answer

    async def _claim(self, claim: Claim, claim_id: bytes, now_ms: int) -> Answer:
        decided: Decided | None = None
        while True:
            heard = self._wakeups.count
            facts = await self._ask(claim, now_ms, writes=True, claim_id=claim_id, decided=decided)
            if facts.granted is not None:
                if self._keeper is not None:
                    self._keeper.moved(facts.granted)
                return Granted(facts.granted, was_in_doubt=decided is not None and decided.was_in_doubt)
            answer = facts.answer(claim)
            if not isinstance(answer, Granted):
                return facts.placed(answer, heard)
            decided = facts.decided(was_in_doubt=answer.was_in_doubt)

    async def look(self, claim: Claim, now_ms: int) -> Answer:
        """Answer by the rules."""
        heard = self._wakeups.count
        facts = await self._ask(claim, now_ms, writes=False)
        return facts.placed(facts.answer(claim), heard)

    async def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Write another attempt with a new lease."""
        return await self._write(statements.EXTEND, *key_parameters(key), token, lease_ms, now_ms, 1)

    async def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Lengthen the lease."""
        return await self._write(statements.EXTEND, *key_parameters(key), token, lease_ms, now_ms, 0)

    async def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Write the outcome; keep an outcome that is recorded."""
        said = (ending.state, ending.result_status, ending.result_code, ending.sealed)
        return await self._write(
            statements.RECORD, *key_parameters(key), token, *said, now_ms, ending.may_be_late
        )

    async def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Remove the row, or restore the state before the attempt."""
        return await self._write(statements.UNDO, *key_parameters(key), token, None, None, now_ms)

    async def queue(self, claim: Claim) -> None:
        """Write an entry, and keep it."""
        self._places.keep(claim)
        await self._keep_places([claim])

    def leave(self, key: Key) -> None:
        """Remove the entry soon."""
        self._places.drop(key)
        self._leave(key)

    def _leave(self, key: Key) -> None:
        self._complete(self._database.value(statements.LEAVE, *key_parameters(key), self._holder))

    async def _keep_places(self, claims: Sequence[Claim]) -> None:
        keys = zip(*(key_parameters(claim.key) for claim in claims), strict=True)
        linkages, biz_times = [claim.linkage for claim in claims], [claim.biz_time_ms for claim in claims]
        places = (*map(list, keys), linkages, biz_times)
        await self._database.fetch(statements.QUEUE, *places, PLACE_MS, self._holder)

    async def wait(self, answer: InProgress | LinkageBusy, timeout_s: float) -> None:
        """Wait for the notification that the request or the linkage may be free."""
        await self._wakeups.wait(answer.place, timeout_s)

    async def find(self, request_id: str) -> Sequence[Row]:
        """Return the rows of every client id and API."""
        return [
            row_of(found, self._now_ms())
            for found in await self._database.fetch(statements.FIND, request_id)
        ]

    async def resolve(self, key: Key, ending: Ending, *, who: str, why: str, now_ms: int) -> bool:
        """Write the decision, also into a table that `drop` does not touch."""
        said = (ending.state, ending.result_status, ending.result_code, ending.sealed)
        return await self._write(
            statements.RESOLVE, *key_parameters(key), *said, who, why, now_ms, LEASE_MAX_MS
        )

    async def rows(
        self, *, since_ms: int = 0, after: int = 0, in_doubt_at_ms: int | None = None
    ) -> AsyncIterator[Row]:
        """Yield the rows page by page. A row that changes in between may be yielded again.

        The changes are read up to one before which all are committed and durable, so that `after` can
        continue. Leases expire by the database's clock, not at `in_doubt_at_ms`.
        """
        if in_doubt_at_ms is not None:
            async for row in self._pages(statements.ROWS_IN_DOUBT, after):
                yield row
            return
        while True:
            last = await self._database.value(statements.LAST_CHANGE)
            if since_ms > 0:
                first = await self._database.value(statements.FIRST_CHANGE_SINCE, since_ms, last)
                after, since_ms = max(after, last if first is None else first - 1), 0
            async for row in self._pages(statements.PAGE_OF_ROWS, after, last):
                yield row
            # A row that changed since was not read. With few of them, nothing changes while they are read.
            changed = await self._database.fetch(statements.LAST_ROWS, max(after, last), PAGE_ROWS)
            for columns in changed:
                yield row_of(columns, self._now_ms())
            if len(changed) < PAGE_ROWS:
                return
            after = changed[-1]["change"]

    async def _pages(self, statement: str, after: int, *more: int) -> AsyncIterator[Row]:
        while found := await self._database.fetch(statement, after, PAGE_ROWS, *more):
            for columns in found:
                yield row_of(columns, self._now_ms())
            after = found[-1]["change"]

    async def in_doubt(self, _now_ms: int) -> Sequence[InDoubt]:
        """Count those in doubt by the database's clock, through the index of open requests."""
        found = await self._database.fetch(statements.COUNT_IN_DOUBT, COUNTED_MAX)
        return [InDoubt(*row) for row in found]

    async def drop(self, *, before_ms: int, now_ms: int) -> int:
        """Delete old rows that have an outcome, a few in each transaction."""
        await self._database.value(statements.MARK, before_ms, now_ms, MARK_EVERY_MS)
        total = 0
        while dropped := await self._database.value(statements.DROP, before_ms, DROP_ROWS):
            total += dropped
        return total

    async def close(self) -> Sequence[Key]:
        """Complete the pending writes, update the marker, and close the connections."""
        if self._writing:
            await asyncio.wait(self._writing)
        await self._places.close()
        left = await self._lost.close()
        if self._keeper is not None:
            await asyncio.to_thread(self._keeper.close)
        await self._database.close()
        return left

    async def _ask(
        self,
        claim: Claim,
        now_ms: int,
        *,
        writes: bool,
        claim_id: bytes = b"",
        decided: Decided | None = None,
    ) -> Facts:
        parameters = self._claim_parameters(
            claim, now_ms, writes=writes, claim_id=claim_id, wait_ms=PLACE_MS, decided=decided
        )
        (found,) = await self._database.fetch(statements.CLAIM, *parameters)
        return Facts.of(found, claim, self._now_ms())

    async def _undo_claim(self, lost: LostClaim) -> bool:
        what = (lost.claim_id, lost.linkage, self._now_ms())
        return bool(await self._database.value(statements.TAKE_BACK, *key_parameters(lost.key), *what))

    async def _write(self, statement: str, *parameters: object) -> bool:
        """Run a statement to its end, also if its caller is cancelled."""
        return bool(await asyncio.shield(self._complete(self._database.value(statement, *parameters))))

    def _complete(self, operation: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(operation)
        self._writing.add(task)
        task.add_done_callback(self._completed)
        return task

    def _completed(self, task: asyncio.Task[Any]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have been cancelled, and then nobody else reads it
