"""Check each step of a store: what it may change in a row, and that SQLite does what memory does.

`WatchedMemory` checks every change of a row against the port's rules (`service.ledger`), written a second
time. `TwinTables` gives each operation on SQLite's tables, in the order in which they are committed, to a
`WatchedMemory` too, and compares the answers and the rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from service.ledger import FINAL, Answer, Claim, Ending, Granted, Key, Resolution, Row, State
from service.ledger.memory import MemoryLedger
from service.ledger.sqlite.rows import ToClaim, ToRecord, row_of
from service.ledger.sqlite.statements import PAGE_OF_ROWS
from service.ledger.sqlite.tables import Tables

UNFINISHED: Final = {State.SENDING, State.IN_DOUBT}
EVERYTHING: Final = {"change": 0, "id": 0, "limit": -1}
Rows = Mapping[Key, Row]
T = TypeVar("T")
Broken = list[tuple[str, str]]


class WatchedMemory(MemoryLedger):
    """A ledger in memory that checks its own changes by the clock at the time of the change."""

    def __init__(self, broken: Broken, clock_ms: Callable[[], int]) -> None:
        super().__init__(clock_ms)
        self.broken = broken
        self.seen: dict[int, Row | None] = {}
        """The row of each claim before it was answered, by the identity of the claim."""

    async def claim(self, claim: Claim, now_ms: int) -> Answer:
        before = dict(self._rows)
        self.seen[id(claim)] = before.get(claim.key)
        answer = await super().claim(claim, now_ms)
        granted = isinstance(answer, Granted)
        self._check(
            "claim",
            claim.key,
            before,
            lambda old, new: granted and _granted(old, new, before, self._clock_ms()),
        )
        return answer

    async def look(self, claim: Claim, now_ms: int) -> Answer:
        self.seen[id(claim)] = self._rows.get(claim.key)
        return await super().look(claim, now_ms)

    async def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        before = dict(self._rows)
        held = await super().renew(key, token, lease_ms, now_ms)
        self._check(
            "renew", key, before, lambda old, new: _renewed(old, new, before, token, self._clock_ms(), 1)
        )
        return held

    async def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        before = dict(self._rows)
        held = await super().extend(key, token, lease_ms, now_ms)
        self._check(
            "extend", key, before, lambda old, new: _renewed(old, new, before, token, self._clock_ms(), 0)
        )
        return held

    async def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        before = dict(self._rows)
        held = await super().record(key, token, ending, now_ms)
        self._check("record", key, before, lambda old, new: _recorded(old, new, token, ending))
        return held

    async def undo(self, key: Key, token: int, now_ms: int) -> bool:
        before = dict(self._rows)
        held = await super().undo(key, token, now_ms)
        self._check("undo", key, before, lambda old, new: _undone(old, new, token))
        return held

    async def resolve(self, key: Key, ending: Ending, *, who: str, why: str, now_ms: int) -> bool:
        before = dict(self._rows)
        held = await super().resolve(key, ending, who=who, why=why, now_ms=now_ms)
        self._check("resolve", key, before, lambda old, new: _resolved(old, new, before, self._clock_ms()))
        return held

    async def drop(self, *, before_ms: int, now_ms: int) -> int:
        before = dict(self._rows)
        dropped = await super().drop(before_ms=before_ms, now_ms=now_ms)
        for key, old in before.items():
            if key not in self._rows and (old.state in UNFINISHED or old.updated_ms >= before_ms):
                self.broken.append(("store", f"drop removed {old}"))
        return dropped

    def _check(
        self, operation: str, key: Key, before: Rows, is_right: Callable[[Row | None, Row | None], bool]
    ) -> None:
        for other in before.keys() | self._rows.keys():
            old, new = before.get(other), self._rows.get(other)
            if old is new or _is_shortened(old, new):
                continue
            if other != key or not (_is_same_request(old, new) and is_right(old, new)):
                self.broken.append(("store", f"{operation} of {key.request_id}: {old} became {new}"))


def _is_shortened(old: Row | None, new: Row | None) -> bool:
    if old is None or new is None or old.state is not State.SENDING:
        return False
    return (
        new.lease_until_ms < old.lease_until_ms and replace(old, lease_until_ms=new.lease_until_ms) == new
    )


def _is_same_request(old: Row | None, new: Row | None) -> bool:
    def content(row: Row) -> tuple[object, ...]:
        return row.fingerprint, row.linkage, row.biz_time_ms, row.created_ms, row.caller

    return old is None or new is None or content(old) == content(new)


def _sending_elsewhere(row: Row, rows: Rows, now_ms: int) -> bool:
    return any(
        other.state is State.SENDING and other.lease_until_ms > now_ms for other in _others(row, rows)
    )


def _others(row: Row, rows: Rows) -> list[Row]:
    """Return the other requests for the linkage of a row."""
    return [
        other
        for other in rows.values()
        if other.key != row.key
        and row.linkage is not None
        and (other.linkage, other.key.api) == (row.linkage, row.key.api)
    ]


def _granted(old: Row | None, new: Row | None, rows: Rows, now_ms: int) -> bool:
    if new is None or new.state is not State.SENDING or _sending_elsewhere(new, rows, now_ms):
        return False
    if any(new.token <= other.token for other in rows.values()):
        return False
    if old is not None:
        is_free = old.state not in FINAL and not (
            old.state is State.SENDING and old.lease_until_ms > now_ms
        )
        doubt = old.state is not State.GATEWAY_REJECTED
        return is_free and (new.attempts, new.was_in_doubt) == (old.attempts + 1, doubt)
    applied = [one for one in _others(new, rows) if one.state is State.APPLIED]
    newest = max((one.biz_time_ms or 0 for one in applied), default=-1)
    tied = {one.fingerprint for one in applied if one.biz_time_ms == newest}
    biz_time = new.biz_time_ms or 0
    return biz_time > newest or (biz_time == newest and new.fingerprint in tied)


def _renewed(old: Row | None, new: Row | None, rows: Rows, token: int, now_ms: int, attempts: int) -> bool:
    if old is None or new is None or old.token != token or new.token != token:
        return False
    holds = old.state is State.SENDING and old.lease_until_ms > now_ms
    if old.state not in UNFINISHED or (not holds and _sending_elsewhere(old, rows, now_ms)):
        return False
    doubt = bool(attempts) or old.was_in_doubt
    return (new.state, new.attempts, new.was_in_doubt) == (State.SENDING, old.attempts + attempts, doubt)


def _recorded(old: Row | None, new: Row | None, token: int, ending: Ending) -> bool:
    if old is None or new is None or old.token != token or new.token != token:
        return False
    return old.state in UNFINISHED and (new.state, new.ending) == (ending.state, ending)


def _undone(old: Row | None, new: Row | None, token: int) -> bool:
    if old is None or old.state is not State.SENDING or old.token != token:
        return False
    if new is None:
        return not old.was_in_doubt and old.ending is None
    before = State.IN_DOUBT if old.was_in_doubt else State.GATEWAY_REJECTED
    return (new.state, new.attempts, new.token) == (before, old.attempts - 1, token)


def _resolved(old: Row | None, new: Row | None, rows: Rows, now_ms: int) -> bool:
    if old is None or new is None or not old.is_in_doubt(now_ms):
        return False
    return new.state in FINAL and all(new.token > other.token for other in rows.values())


class TwinTables(Tables):
    """SQLite's tables, with a twin in memory."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        key_id: str,
        clock_ms: Callable[[], int],
        twin: WatchedMemory,
    ) -> None:
        super().__init__(connection, key_id, clock_ms)
        self._twin = twin
        self._marked_ms = 0

    def claim(self, claim: Claim, now_ms: int) -> Answer:
        answer = super().claim(claim, now_ms)
        return self._same("claim", claim.key, answer, self._twin.claim(claim, now_ms))

    def insert(self, claims: Sequence[ToClaim], *, is_checked: bool = False) -> list[Granted | None]:
        granted = super().insert(claims, is_checked=is_checked)
        for one, answer in zip(claims, granted, strict=True):
            if answer is not None and not is_checked:  # else it is part of `claim`
                self._same("claim", one.claim.key, answer, self._twin.claim(one.claim, one.now_ms))
        return granted

    def record_all(self, outcomes: Sequence[ToRecord]) -> bool:
        done = super().record_all(outcomes)
        for one in outcomes if done else ():
            theirs = self._twin.record(one.key, one.token, one.ending, one.now_ms)
            self._same("record", one.key, True, theirs)
        return done

    def look(self, claim: Claim, now_ms: int) -> Answer:
        # SQLite's `look` writes nothing; that of the twin shortens leases.
        rows = dict(self._twin._rows)
        answer = self._same(
            "look", claim.key, super().look(claim, now_ms), self._twin.look(claim, now_ms), rows=False
        )
        self._twin._rows = rows
        return answer

    def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        held = super().renew(key, token, lease_ms, now_ms)
        return self._same("renew", key, held, self._twin.renew(key, token, lease_ms, now_ms))

    def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        held = super().extend(key, token, lease_ms, now_ms)
        return self._same("extend", key, held, self._twin.extend(key, token, lease_ms, now_ms))

    def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        held = super().record(key, token, ending, now_ms)
        return self._same("record", key, held, self._twin.record(key, token, ending, now_ms))

    def undo(self, key: Key, token: int, now_ms: int) -> bool:
        held = super().undo(key, token, now_ms)
        return self._same("undo", key, held, self._twin.undo(key, token, now_ms))

    def resolve(self, key: Key, ending: Ending, resolution: Resolution) -> bool:
        held, (who, why, now_ms) = super().resolve(key, ending, resolution), _parts(resolution)
        return self._same(
            "resolve", key, held, self._twin.resolve(key, ending, who=who, why=why, now_ms=now_ms)
        )

    def mark(self, *, before_ms: int, now_ms: int) -> None:
        super().mark(before_ms=before_ms, now_ms=now_ms)
        self._marked_ms = now_ms

    def drop(self, *, before_ms: int, limit: int) -> int:
        dropped = super().drop(before_ms=before_ms, limit=limit)
        work = self._twin.drop(before_ms=before_ms, now_ms=self._marked_ms)
        # A mark has the last token before its transaction; the twin has no transactions.
        self._twin._marks = self._marks()
        return self._same("drop", Key("", "", ""), dropped, work)

    def load(self) -> None:
        """Give the twin the rows that are in the file."""
        twin = self._twin
        twin.__dict__.update(WatchedMemory(twin.broken, twin._clock_ms).__dict__)
        for found in self._execute(PAGE_OF_ROWS, EVERYTHING).fetchall():
            twin._put(row_of(found))
        (twin._last_token,) = self._execute("SELECT last_token FROM meta").fetchone()
        twin._marks = self._marks()

    def _marks(self) -> list[tuple[int, int]]:
        return list(self._execute("SELECT at_ms, token FROM clock_mark ORDER BY at_ms").fetchall())

    def _same(self, operation: str, key: Key, ours: T, work: Awaitable[T], *, rows: bool = True) -> T:
        theirs = _result_of(work)
        ids = f"{operation} of {key.request_id}"
        if ours != theirs:
            self._twin.broken.append(("levels", f"{ids}: SQLite says {ours}, memory {theirs}"))
        elif rows and (row := self.row(key)) != (other := self._twin._rows.get(key)):
            self._twin.broken.append(("levels", f"{ids}: SQLite has {row}, memory {other}"))
        return ours


def _parts(resolution: Resolution) -> tuple[str, str, int]:
    return resolution.who, resolution.why, resolution.at_ms


def _result_of(work: Awaitable[Any]) -> Any:
    """Return the result of an operation that awaits nothing."""
    try:
        work.__await__().send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("an operation in memory waited")
