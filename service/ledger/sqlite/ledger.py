"""The `Ledger` port on a SQLite file. See the package for its theory of operation."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, ClassVar, Final, cast

from .. import (
    Answer,
    Claim,
    Ending,
    Granted,
    InDoubt,
    InProgress,
    Key,
    LedgerUnavailable,
    LinkageBusy,
    Resolution,
    Row,
)
from ..lease import WALL_CLOCK
from ..marker import Entry, Marker, MarkerKeeper
from ..rules import COUNTED_MAX
from .file import LedgerFile, name_of
from .operation import consume_failure
from .rows import ToClaim, ToRecord, row_of
from .statements import COUNT_IN_DOUBT, FIND, FIRST_CHANGE_SINCE, IDS_IN_DOUBT, PAGE_OF_ROWS, rows_in_doubt
from .writer import Writer

PAGE_ROWS: Final = 500
ID_MAX: Final = 2**63 - 1
DROP_ROWS: Final = 200
"""Maximum number of rows that one transaction deletes, so that claims are not delayed."""

Parameters = Sequence[object] | Mapping[str, object]


class SqliteLedger:
    """Writes through one thread; `find` and `rows` read over separate connections."""

    outlives_process: ClassVar[bool] = True

    def __init__(
        self,
        file: LedgerFile,
        marker: Marker | None = None,
        report: Callable[[str], None] = lambda _: None,
        clock_ms: Callable[[], int] = WALL_CLOCK.now_ms,
    ) -> None:
        """Open the file, and keep its entry in the marker; MarkerKeeper calls `report`."""
        self._file = file
        self._keeper: MarkerKeeper | None = None
        self._writer = Writer(file, clock_ms, self._granted)
        if marker is not None:
            entry = Entry(file.token_at_open, str(file.path))
            self._keeper = MarkerKeeper(marker, file.ledger_id, entry, report)

    @property
    def ledger_id(self) -> str:
        """Return the random id of the database."""
        return self._file.ledger_id

    @property
    def log_bytes(self) -> int:
        """Return the size of the write-ahead log's file."""
        return self._file.log_bytes

    async def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Answer by the rules, and write a grant."""

        def on_abandoned(answer: Answer) -> None:
            # The claiming task was cancelled before it got the grant, so nothing was sent.
            if isinstance(answer, Granted):
                with suppress(LedgerUnavailable):
                    undone = self._writer.submit(lambda on: on.undo(claim.key, answer.token, now_ms))
                    undone.add_done_callback(consume_failure)

        return cast("Answer", await self._writer.submit(ToClaim(claim, now_ms), on_abandoned=on_abandoned))

    async def look(self, claim: Claim, now_ms: int) -> Answer:
        """Answer by the rules."""
        return cast("Answer", await self._writer.submit(lambda on: on.look(claim, now_ms), writes=False))

    async def queue(self, claim: Claim) -> None:
        """Do nothing: requests wait in the order of their arrival at the ledger."""

    def leave(self, key: Key) -> None:
        """Do nothing."""

    async def wait(self, _answer: InProgress | LinkageBusy, timeout_s: float) -> None:
        """Wait: nobody says that another process has ended its attempt."""
        await asyncio.sleep(timeout_s)

    async def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Write another attempt with a new lease."""
        return bool(await self._writer.submit(lambda on: on.renew(key, token, lease_ms, now_ms)))

    async def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Lengthen the lease."""
        return bool(await self._writer.submit(lambda on: on.extend(key, token, lease_ms, now_ms)))

    async def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Write the outcome; keep an outcome that is recorded."""
        return bool(await self._writer.submit(ToRecord(key, token, ending, now_ms)))

    async def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Remove the row, or restore the state before the attempt."""
        return bool(await self._writer.submit(lambda on: on.undo(key, token, now_ms)))

    async def find(self, request_id: str) -> Sequence[Row]:
        """Return the rows of every client id and API."""
        return [row_of(found) for found in await asyncio.to_thread(self._read, FIND, (request_id,))]

    async def resolve(self, key: Key, ending: Ending, *, who: str, why: str, now_ms: int) -> bool:
        """Write the decision, also into a table that `drop` does not touch."""
        resolution = Resolution(who, why, now_ms)
        return bool(await self._writer.submit(lambda on: on.resolve(key, ending, resolution)))

    async def rows(
        self, *, since_ms: int = 0, after: int = 0, in_doubt_at_ms: int | None = None
    ) -> AsyncIterator[Row]:
        """Yield the rows page by page. A row that changes in between may be yielded again."""
        with closing(await asyncio.to_thread(self._open_to_read)) as reader:
            pages = self._pages(reader, since_ms, after)
            if in_doubt_at_ms is not None:
                pages = self._pages_in_doubt(reader, in_doubt_at_ms)
            async for page in pages:
                for row in page:
                    yield row

    async def _pages(
        self, reader: sqlite3.Connection, since_ms: int, after: int
    ) -> AsyncIterator[list[Row]]:
        place = {"change": after, "id": ID_MAX, "limit": PAGE_ROWS}
        if since_ms > 0:
            ((first,),) = await self._fetch(reader, FIRST_CHANGE_SINCE, {"since_ms": since_ms})
            if first is None:
                return
            if first > after:
                place |= {"change": first, "id": 0}
        while found := await self._fetch(reader, PAGE_OF_ROWS, place):
            yield [row_of(columns) for columns in found]
            place |= {"change": found[-1][-2], "id": found[-1][-1]}

    async def _pages_in_doubt(self, reader: sqlite3.Connection, at_ms: int) -> AsyncIterator[list[Row]]:
        # Few rows are in doubt. Their ids fit into memory, and need no index that each request changes.
        ids = [row_id for (row_id,) in await self._fetch(reader, IDS_IN_DOUBT, (at_ms,))]
        for start in range(0, len(ids), PAGE_ROWS):
            page = ids[start : start + PAGE_ROWS]
            found = await self._fetch(reader, rows_in_doubt(len(page)), (*page, at_ms))
            yield [row_of(columns) for columns in found]

    async def in_doubt(self, now_ms: int) -> Sequence[InDoubt]:
        """Count those in doubt through the index of open requests."""
        found = await asyncio.to_thread(self._read, COUNT_IN_DOUBT, (now_ms, COUNTED_MAX) * 2)
        return [InDoubt(*row) for row in found]

    async def drop(self, *, before_ms: int, now_ms: int) -> int:
        """Delete old rows that have an outcome, a few in each transaction."""
        await self._writer.submit(lambda on: on.mark(before_ms=before_ms, now_ms=now_ms))
        total = 0
        while True:
            dropped = int(
                await self._writer.submit(lambda on: on.drop(before_ms=before_ms, limit=DROP_ROWS))
            )
            total += dropped
            if dropped < DROP_ROWS:
                return total

    async def close(self) -> Sequence[Key]:
        """Complete the pending writes, update the marker, and release the file."""
        await self._writer.close()
        if self._keeper is not None:
            await asyncio.to_thread(self._keeper.close)
        self._file.release()
        return ()

    def _granted(self, token: int) -> None:
        if self._keeper is not None:
            self._keeper.moved(token)

    def _read(self, statement: str, parameters: Parameters) -> list[Any]:
        with closing(self._open_to_read()) as reader:
            return _fetched(reader, statement, parameters)

    def _open_to_read(self) -> sqlite3.Connection:
        try:
            return self._file.open_to_read()
        except sqlite3.Error as error:
            raise _unreadable(error) from None

    async def _fetch(self, reader: sqlite3.Connection, statement: str, parameters: Parameters) -> list[Any]:
        """Read in a thread, in a transaction of its own; the file must still be the same."""
        self._file.must_be_the_same()
        return await asyncio.to_thread(_fetched, reader, statement, parameters)


def _fetched(reader: sqlite3.Connection, statement: str, parameters: Parameters) -> list[Any]:
    try:
        return reader.execute(statement, parameters).fetchall()
    except sqlite3.Error as error:
        raise _unreadable(error) from None


def _unreadable(error: sqlite3.Error) -> LedgerUnavailable:
    return LedgerUnavailable(f"the ledger's file cannot be read: {name_of(error)}")
