"""The ledger's store on a PostgreSQL server in virtual time: real `PostgresLedger`s and connections.

`postgres_server` has the faults, which hit one statement or all of them. `postgres_twin` checks each one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from service.delivery.ledger_wait import POLL_MIN_S, POLL_S
from service.ledger import (
    Answer,
    Claim,
    Granted,
    InProgress,
    Key,
    LedgerUnavailable,
    LinkageBusy,
    Row,
    State,
)
from service.ledger.lease import LEASE_MAX_MS
from service.ledger.postgres import statements
from service.ledger.postgres.database import Database
from service.ledger.postgres.ledger import PostgresLedger
from service.ledger.postgres.lost_claims import AGAIN_S

from .disk import Disk
from .postgres_server import ASKING, URL, Server, Statement
from .postgres_session import Done, Session
from .postgres_twin import PostgresTwin, Waiting, place_of
from .store import LATE_S, Fault, FaultyLedger, Held, Store
from .timeline import Process, Timeline

T = TypeVar("T")
POOL_MAX: Final = 4
TIMEOUT_S: Final = 1.0
"""LEDGER_TIMEOUT_S."""
CUT_S: Final = 10.0
"""So long after the database's clock was set ahead, claims that were granted before may be taken over."""
WOKEN_S: Final = 0.03
"""How long after its linkage is free a call asks again if notifications arrive at once."""
POLLED_S: Final = POLL_S + POLL_MIN_S + WOKEN_S
"""The same if they are lost."""
GONE_S: Final = 0.05
"""After so long the database knows that a request has ended."""
EDITS: Final[list[str]] = []
"""Functions of the schema that a mutant has changed."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A claim that was granted."""

    process: Process
    key: Key
    took_s: float
    """The time from its question to its commit."""


@dataclass(frozen=True, slots=True)
class Left:
    """A request that gave up its place among those that wait."""

    at_s: float
    key: Key
    biz_time_ms: int


class PostgresStore(Store):
    """The database of one run."""

    def __init__(
        self,
        timeline: Timeline,
        faults: Sequence[Fault],
        directory: Path,
        disk: Disk,
        session: Session,
        dice: Random,
        deaf_share: float | None,
    ) -> None:
        """Start a run; no notification is late or lost if `deaf_share` is None."""
        super().__init__("postgres", timeline, faults, directory, disk)
        self.twin = PostgresTwin(self.broken)
        self._twin = self.twin.memory
        self._session, self._dice = session, dice
        self._deaf_share = deaf_share
        self.server = Server(timeline, session, dice, self.next_fault, self, deaf_share or 0.0)
        self.known: set[int] = set()
        """The tokens that their processes got to know."""
        self.freed_s: dict[tuple[object, ...], float] = {}
        """When a request or a linkage was last freed."""
        self.left: dict[tuple[object, ...], Left] = {}
        """The last one that gave up its place."""
        self.asked_s: dict[tuple[str, Key], float] = {}
        """When a process's last question about a request was decided."""
        self.gone_s: dict[tuple[Key, bytes], float] = {}
        """When requests ended that had places among those that wait."""
        self._behind: dict[tuple[str, Key], set[str]] = {}
        """The older requests of its gateway that waited when a request asked last."""
        self._grants: dict[int, Grant] = {}
        self._ahead_s, self._steps, self._opened = float("-inf"), 0, 0
        session.begin(dice.choice(("on", "on", "on", "off")), EDITS)

    def open(self, process: Process, now_ms: Callable[[], int]) -> FaultyLedger:
        """Open it for a process that starts."""
        database = Database(URL, pool_max=POOL_MAX, timeout_s=TIMEOUT_S)
        self._opened += 1
        ledger = PostgresLedger(
            database,
            "key",
            random_bytes=self._dice.randbytes,
            holder=b"%d" % self._opened,
            now_ms=now_ms,
        )
        return PostgresPort(self, process, ledger, self.twin.memory)

    def held_for(self, seconds: float) -> list[Key]:
        """Return the requests that are held for so long yet."""
        after_ms = self.lease_clock_ms() + seconds * 1000
        return [key for key, held in self.held.items() if held.until_ms > after_ms and self.is_claimed(key)]

    def running(self) -> AbstractContextManager[None]:
        """Let processes connect."""
        return self.server.connecting()

    def end(self) -> None:
        """Compare what is left, and undo it."""
        self.twin.check_all(self._session.rows())
        self._session.end()

    @property
    def woken_s(self) -> float:
        """How long after its linkage was freed a call may ask again."""
        return POLLED_S if self.disturbed or self._deaf_share else WOKEN_S

    @property
    def last_token(self) -> int:
        """The last token that was granted."""
        return self._twin._last_token

    def freed_since_s(self, claim: Claim) -> float:
        """Return since when nothing that happened there needs to be waited for by a claim."""
        place = place_of(claim.key, claim.linkage)
        freed_s, left = self.freed_s.get(place, 0.0), self.left.get(place)
        if left is None or left.key == claim.key or left.biz_time_ms >= (claim.biz_time_ms or 0):
            return freed_s
        return max(freed_s, left.at_s)

    def lease_clock_ms(self) -> float:
        """Return the database's clock."""
        return self.server.clock_ms()

    @property
    def was_set_ahead(self) -> bool:
        """Whether claims that may still be sent were granted before its clock was set ahead."""
        return self.timeline.now_s - self._ahead_s < CUT_S

    def set_clock(self, step_s: float) -> None:
        """Set the database's clock ahead or back."""
        if step_s > self.server.step_s:
            self._ahead_s = self.timeline.now_s
        self.server.step_s = step_s
        self._steps += 1

    def calm_down(self) -> None:
        """Set the database's clock right."""
        self.set_clock(0.0)

    def clock_steps(self, steps: int) -> int:
        """Return how often the database's clock was set: leases expire by that alone."""
        return self._steps

    @property
    def disturbed_until_s(self) -> float:  # type: ignore[override]
        """Until when the server cannot be used."""
        return self.server.disturbed_until_s

    def durable(self, key: Key) -> Row | None:
        """Return what is committed of a request."""
        return self._twin._rows.get(key)

    def dropped(self, process: Process) -> None:
        """Close the connections of a killed process."""
        self.server.drop(process)

    def lose_power(self, files: dict[str, bytes]) -> None:
        """Crash with all processes."""
        self.server.crash(self._dice.choice((0.1, 1.0, 3.0)))

    # -- what the server reports

    def state(self) -> Any:
        """Return the state of the twin."""
        return self.twin.snapshot()

    def done(self, statement: Statement, done: Done) -> bool:
        """Check what a statement did, and note what others may rely on from now on."""
        rows, waiting = dict(self._twin._rows), dict(self.twin.waiting)
        self.twin.check(statement.text, statement.parameters, done, self.server.clock_ms(), statement.asked)
        result = done.rows[0][0] if done.rows else None
        if statement.operation:
            self.note("database", statement.operation, statement.ids, result)
            self._check_durability(statement, result, done)
        if statement.operation in {"claim", "look"}:
            process = statement.connection.process.name
            self.asked_s[process, statement.key] = self.timeline.now_s
        if statement.operation == "claim":
            self._claimed(statement, result)
        elif statement.operation in {"renew", "extend"} and result and not statement.is_given_up:
            token, lease_ms, held = *statement.parameters[3:5], self.held.get(statement.key)
            self._hold(statement, token, lease_ms, None if held is None else held.linkage)
        elif statement.operation in {"record", "undo"} and result:
            self.held.pop(statement.key, None)
        self._cut()
        for place in self.twin.waiting.keys() - waiting.keys():
            self.gone_s.pop(place, None)
        self._note_freed(rows, waiting, is_granted=statement.operation == "claim" and bool(result))
        changed = self._twin._rows != rows
        return changed or statement.text in {statements.MARK, statements.LAST_CHANGE}

    def _check_durability(self, statement: Statement, result: Any, done: Done) -> None:
        """Only the outcome of a request that is sent again when in doubt may be late."""
        may_be_late = statement.operation == "record" and statement.parameters[-1]
        if result and statement.operation != "look" and not done.is_durable and not may_be_late:
            ids = f"{statement.operation} of {statement.key.request_id}"
            self.broken.append(("durable", f"{ids} is not durable at its commit"))

    def _claimed(self, statement: Statement, token: int | None) -> None:
        claim, now_s = statement.asked, self.timeline.now_s
        assert claim is not None
        if token is not None:
            self._grants[token] = Grant(statement.connection.process, claim.key, now_s - statement.sent_s)
            self._hold(statement, token, claim.lease_ms, claim.linkage)
        if self.disturbed:
            return
        older, name = self.overtaken(claim), statement.connection.process.name
        if token is not None and older:
            self.broken.append(
                ("overtaken", f"{claim.key.request_id} is granted before {', '.join(older)}")
            )
        # After the first refusal it gives way in its gateway, and does not ask before them again.
        own = {one for one in older if one.endswith(f" of {name}")}
        if again := own & self._behind.get((name, claim.key), set()):
            self.broken.append(
                ("gives way", f"{claim.key.request_id} asks again before {', '.join(sorted(again))}")
            )
        self._behind[name, claim.key] = own
        for other in () if token is not None else self.twin.older(claim):
            if now_s - self.gone_s.get(other, now_s) > GONE_S:
                ids = f"{claim.key.request_id} waits for {other[0].request_id}"
                self.broken.append(("woken", f"{ids}, which has ended"))

    def _hold(self, statement: Statement, token: int, lease_ms: int, linkage: bytes | None) -> None:
        until_ms, until_s = self.server.clock_ms() + lease_ms, self.timeline.now_s + lease_ms / 1000
        name = statement.connection.process.name
        self.held[statement.key] = Held(name, token, linkage, until_ms, until_s)

    def _cut(self) -> None:
        """Note the end of leases that were impossibly long, and that somebody has read since."""
        longest_ms = self.server.clock_ms() + LEASE_MAX_MS
        for key, held in self.held.items():
            row = self._twin._rows.get(key)
            if row is not None and row.lease_until_ms <= longest_ms < held.until_ms:
                held.until_ms = row.lease_until_ms

    def _note_freed(
        self, rows: Mapping[Key, Row], waiting: Mapping[tuple[Key, bytes], Waiting], *, is_granted: bool
    ) -> None:
        """Note which requests are not being sent any more, and which have given up their places."""
        for key, old in rows.items():
            new = self._twin._rows.get(key)
            if (
                old is not new
                and old.state is State.SENDING
                and (new is None or new.state is not old.state)
            ):
                self.freed_s[place_of(key, old.linkage)] = self.timeline.now_s
        for (key, holder), one in waiting.items():
            is_lost = (key, holder) not in self.twin.waiting and one.until_ms > self.server.clock_ms()
            if is_lost and not is_granted:
                self.left[one.place] = Left(self.timeline.now_s, key, one.biz_time_ms or 0)

    def could_not(self, statement: Statement, error: Exception) -> None:
        """Report an error that no fault of the run explains."""
        if statement.operation == "claim" and statement.parameters[13] in self.twin.undone:
            return  # it arrived after it was undone
        self.broken.append(("statement", f"{statement.operation or statement.text} failed: {error}"))

    def crashed(self, before: Any, last_token: int) -> None:
        """Take the state before the first commit that was lost."""
        self.note("database", "crashes", "and loses outcomes" if before else "")
        if before is not None:
            self.twin.restore(before)
        self.twin.crashed(last_token)

    # -- at the end of the faults

    def check_lost_claims(self) -> None:
        """Check that each claim whose answer was lost was undone by its process, if that still runs."""
        for key, row in self._twin._rows.items():
            grant = self._grants.get(row.token)
            if row.state is not State.SENDING or grant is None or row.token in self.known:
                continue
            if grant.process.alive and grant.took_s < AGAIN_S:
                text = f"{grant.process.name} has not undone its claim of {key.request_id}"
                self.broken.append(("lost claim", f"{text}, whose answer it lost"))


class PostgresPort(FaultyLedger):
    """The ledger as one process sees it; its faults are those of the server."""

    _store: PostgresStore
    _ledger: PostgresLedger

    async def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Claim."""
        ASKING.set(claim)
        answer = await super().claim(claim, now_ms)
        if isinstance(answer, Granted):
            self._store.known.add(answer.token)
        return answer

    async def look(self, claim: Claim, now_ms: int) -> Answer:
        """Look up."""
        ASKING.set(claim)
        return await super().look(claim, now_ms)

    async def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Undo; a probe needs no statement, of which there would be more than of all others."""
        if key.request_id:
            return await super().undo(key, token, now_ms)
        if self._is_closed or self._store.server.is_unreachable(self._process):
            raise LedgerUnavailable("the ledger's database cannot be used")
        return False

    def leave(self, key: Key) -> None:
        """Leave."""
        self._store.gone_s[key, self._ledger._holder] = self._store.timeline.now_s
        super().leave(key)

    async def wait(self, answer: InProgress | LinkageBusy, timeout_s: float) -> None:
        """Wait, and check that it does not take longer than it should."""
        claim = ASKING.get()
        assert claim is not None
        since_s, ran_s = self._store.timeline.now_s, self._process.ran_s
        asked_s = self._store.asked_s[self._process.name, claim.key]
        await super().wait(answer, timeout_s)
        freed_s = self._store.freed_since_s(claim)
        late_s = self._store.timeline.now_s - max(freed_s, since_s)
        late_s -= (self._store.timeline.now_s - since_s) - (self._process.ran_s - ran_s)
        # The end of an earlier call of this gateway may take the place of the new one with it.
        left = self._store.left.get(place_of(claim.key, claim.linkage))
        is_unplaced = left is not None and left.key == claim.key and left.at_s > asked_s
        if freed_s > asked_s and late_s > (POLLED_S if is_unplaced else self._store.woken_s):
            self._break("woken", f"{claim.key.request_id} {late_s:.3f} s after what it waited for was free")

    def _hold(self, *_: Any) -> None:
        """Do nothing: the store knows it from the commit."""

    def _lease_now_ms(self, now_ms: int) -> float:
        return self._store.lease_clock_ms()

    async def _ended(self, key: Key, work: Awaitable[bool]) -> bool:
        is_held = await work
        if not is_held:
            self._store.failed.add(key)
        return is_held

    async def _through(self, operation: str, key: Key, work: Callable[[], Awaitable[T]]) -> T:
        store, asked_s = self._store, self._store.timeline.now_s
        if self._is_closed:
            raise LedgerUnavailable("the ledger is closed")
        try:
            result = await work()
        except (LedgerUnavailable, asyncio.CancelledError) as error:
            if operation in {"record", "undo"}:
                store.failed.add(key)
            if operation == "claim":
                store.unclear.add(key)
            self.note(operation, key.request_id, type(error).__name__)
            raise
        if operation == "claim" and store.timeline.now_s - asked_s > LATE_S:
            store.unclear.add(key)
        if key.request_id:
            self.note(operation, key.request_id, result)
        return result
