"""Check each statement on the simulated PostgreSQL database against the ledger in memory.

Every statement is given to a `WatchedMemory`, in the order of the commits and at the time of the database's
clock. It has the leases of the database; the other times of a row are by the clocks of the gateways, and
are set here. The order of those that wait, and the undoing of claims by their random ids, are written here
a second time, because the ledger in memory has neither.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from service.ledger import (
    FINAL,
    Claim,
    Ending,
    Granted,
    InProgress,
    Key,
    LinkageBusy,
    Resolution,
    Row,
    State,
)
from service.ledger.lease import LEASE_MAX_MS
from service.ledger.postgres import statements
from service.ledger.postgres.rows import Facts, row_of

from .postgres_session import Done
from .twin import Broken, WatchedMemory, _result_of

READS: Final = {statements.FIND, statements.PAGE_OF_ROWS, statements.LAST_ROWS, statements.ROWS_IN_DOUBT}
NOBODY: Final = Key("", "", "")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call that waits for its request or its linkage."""

    place: tuple[object, ...]
    biz_time_ms: int | None
    until_ms: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What decides a claim, when a process was told."""

    change: int | None
    """That of its row, if it has one."""
    applied: tuple[int, ...]
    """The changes of those of its linkage that were applied."""


class PostgresTwin:
    """The rows of the database in memory, and what else its functions know."""

    def __init__(self, broken: Broken) -> None:
        self.memory = WatchedMemory(broken, lambda: self._clock_ms)
        self.claim_ids: dict[Key, bytes] = {}
        """The random id of the claim of each row that was granted last."""
        self.undone: set[bytes] = set()
        """The random ids of claims that were undone before they arrived."""
        self.waiting: dict[tuple[Key, bytes], Waiting] = {}
        """The requests that wait, each with the process in which it does."""
        self._seen: dict[bytes, Seen] = {}
        self._broken = broken
        self._clock_ms = 0
        self._checks: dict[str, Callable[..., Key]] = {
            statements.EXTEND: self._extend,
            statements.RECORD: self._record,
            statements.UNDO: self._undo,
            statements.TAKE_BACK: self._take_back,
            statements.RESOLVE: self._resolve,
            statements.QUEUE: self._queue,
            statements.LEAVE: self._leave,
            statements.MARK: self._mark,
            statements.DROP: self._drop,
        }

    def snapshot(self) -> dict[str, Any]:
        """Return the state."""
        memory = self.memory
        linkages = {linkage: dict(keys) for linkage, keys in memory._by_linkage.items()}
        return {
            "_rows": dict(memory._rows),
            "_by_linkage": defaultdict(dict, linkages),
            "_marks": list(memory._marks),
            "_last_change": memory._last_change,
            "claim_ids": dict(self.claim_ids),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Have an earlier state again."""
        self.memory.__dict__.update(snapshot)
        self.claim_ids = snapshot["claim_ids"]

    def crashed(self, last_token: int) -> None:
        """Forget what a crash empties, and skip the tokens that it lost."""
        self.waiting.clear()
        self.memory._last_token = last_token

    def check(
        self, text: str, parameters: Sequence[Any], done: Done, clock_ms: int, asked: Claim | None
    ) -> None:
        """Do what a statement did, and compare."""
        self._clock_ms = clock_ms
        if text in READS:
            for found in done.rows:
                self._same_row("rows", row_of(found, clock_ms))
            return
        if text == statements.CLAIM:
            assert asked is not None
            key = self._claim(parameters, done, asked)
        elif text in self._checks:
            key = self._checks[text](parameters, done.rows[0][0])
        else:
            return
        if key is not NOBODY:
            self._same_after(text, key, done)

    def check_all(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Compare all rows of the database."""
        for found in rows:
            key = Key(found["client_id"], found["api"], found["request_id"])
            self._same_row("end", self._row(found, key))
        if len(rows) != len(self.memory._rows):
            self._break("end", f"PostgreSQL has {len(rows)} rows, memory {len(self.memory._rows)}")

    # -- one operation each

    def _claim(self, parameters: Sequence[Any], done: Done, claim: Claim) -> Key:
        key, memory = claim.key, self.memory
        writes, wait_ms, now_ms, claim_id, may_be_new, decided, was_in_doubt, holder = (
            parameters[at] for at in (0, 11, 12, 13, 14, 15, 16, 19)
        )
        self._check_parameters(claim, parameters, may_be_new)
        before = memory._rows.get(key)
        facts = Facts.of(done.rows[0], claim, self._clock_ms)
        name = f"claim of {key.request_id}"
        older_ms = max((one.until_ms for one in self.older(claim).values()), default=0)
        if facts.granted is not None:
            if older_ms:
                self._break(name, "was granted although an older one waits")
            granted = Granted(facts.granted, was_in_doubt=bool(decided and was_in_doubt))
            self._same(name, granted, _result_of(memory.claim(claim, self._clock_ms)))
            self._set_times(key, now_ms, created=before is None)
            self.claim_ids[key] = claim_id
        else:
            self._refused(name, claim, facts, older_ms if writes else 0, parameters)
        memory.seen[id(claim)] = before
        if not writes:
            return NOBODY
        answer = facts.answer(claim)
        # A claim that is about to be granted, because its process decides so, keeps its place.
        decides = isinstance(answer, Granted) and claim.linkage is not None
        if facts.granted is None and (decides or isinstance(answer, (InProgress, LinkageBusy))):
            self.waiting[key, holder] = Waiting(
                place_of(key, claim.linkage), claim.biz_time_ms, self._clock_ms + wait_ms
            )
        else:
            self.waiting.pop((key, holder), None)
        return key

    def _refused(
        self, name: str, claim: Claim, facts: Facts, older_ms: int, parameters: Sequence[Any]
    ) -> None:
        """Check the answer to a claim that was not granted: by the rules it may have to be asked again."""
        memory, (writes, claim_id, decided) = self.memory, (parameters[at] for at in (0, 13, 15))
        rows = dict(memory._rows)
        expected = _result_of(memory.look(claim, self._clock_ms))
        if not writes:
            memory._rows = rows
        answer = facts.answer(claim)
        if writes and isinstance(expected, Granted):
            seen, now = self._seen.get(claim_id), self._seen_now(claim)
            self._seen[claim_id] = now
            is_free = seen == now if decided else now == Seen(None, ())
            if is_free and not older_ms:
                self._break(name, "was not granted, and nothing was in its way")
            if is_free and older_ms:
                expected = LinkageBusy(older_ms, was_in_doubt=expected.was_in_doubt)
        self._same(name, answer, expected)

    def _check_parameters(self, claim: Claim, parameters: Sequence[Any], may_be_new: bool) -> None:
        key = claim.key
        content = (claim.caller, claim.fingerprint, claim.linkage, claim.biz_time_ms, claim.lease_ms)
        said = (*parameters[1:5], *parameters[6:10])
        if said != (key.request_id, key.api, key.client_id, *content):
            self._break("claim", f"of {claim} has {said}")
        latest_ms = claim.biz_time_max_ms
        is_early = claim.biz_time_ms is None or latest_ms is None or claim.biz_time_ms <= latest_ms
        if may_be_new is not is_early:
            self._break("claim", f"of {claim} is said to be in the future: {is_early}")

    def _extend(self, parameters: Sequence[Any], is_held: bool) -> Key:
        request_id, api, client_id, token, lease_ms, now_ms, attempts = parameters
        key = Key(client_id, api, request_id)
        write = self.memory.renew if attempts else self.memory.extend
        if self._same_result("extend", key, is_held, write(key, token, lease_ms, self._clock_ms)):
            self._set_times(key, now_ms)
        return key

    def _record(self, parameters: Sequence[Any], is_held: bool) -> Key:
        request_id, api, client_id, token, state, status, code, sealed, now_ms, late = parameters
        key = Key(client_id, api, request_id)
        ending = Ending(State(state), status, code, sealed, may_be_late=late)
        before = self.memory._rows.get(key)
        work = self.memory.record(key, token, ending, self._clock_ms)
        if self._same_result("record", key, is_held, work) and self.memory._rows[key] is not before:
            self._set_times(key, now_ms, before)
        return key

    def _undo(self, parameters: Sequence[Any], is_held: bool) -> Key:
        request_id, api, client_id, token, claim_id, _, now_ms = parameters
        key = Key(client_id, api, request_id)
        before = self.memory._rows.get(key)
        if before is not None and claim_id is not None and self.claim_ids.get(key) == claim_id:
            token = before.token
        work = self.memory.undo(key, -1 if token is None else token, self._clock_ms)
        if self._same_result("undo", key, is_held, work):
            self._set_times(key, now_ms, before)
        return key

    def _take_back(self, parameters: Sequence[Any], was_granted: bool) -> Key:
        *key, claim_id, linkage, now_ms = parameters
        if not was_granted:
            self.undone.add(claim_id)
        return self._undo((*key, None, claim_id, linkage, now_ms), was_granted)

    def _resolve(self, parameters: Sequence[Any], is_resolved: bool) -> Key:
        request_id, api, client_id, state, status, code, sealed, who, why, now_ms, _ = parameters
        key = Key(client_id, api, request_id)
        ending = Ending(State(state), status, code, sealed)
        before = self.memory._rows.get(key)
        work = self.memory.resolve(key, ending, who=who, why=why, now_ms=self._clock_ms)
        if self._same_result("resolve", key, is_resolved, work):
            self._set_times(key, now_ms, before)
            row = self.memory._rows[key]
            self.memory._rows[key] = replace(row, resolved=Resolution(who, why, now_ms))
        return key

    def _queue(self, parameters: Sequence[Any], _: object) -> Key:
        *columns, wait_ms, holder = parameters
        for request_id, api, client_id, linkage, biz_time_ms in zip(*columns, strict=True):
            key = Key(client_id, api, request_id)
            place = place_of(key, linkage)
            self.waiting[key, holder] = Waiting(place, biz_time_ms, self._clock_ms + wait_ms)
        return NOBODY

    def _leave(self, parameters: Sequence[Any], _: object) -> Key:
        request_id, api, client_id, holder = parameters
        key = Key(client_id, api, request_id)
        self.waiting.pop((key, holder), None)
        return key

    def _mark(self, parameters: Sequence[Any], _: object) -> Key:
        before_ms, now_ms, every_ms = parameters
        marks = self.memory._marks
        if not any(at_ms > now_ms - every_ms for at_ms, _ in marks):
            marks.append((now_ms, self.memory._last_token))
            marks.sort()
        older = [mark for mark in marks if mark[0] < before_ms]
        del marks[: max(len(older) - 1, 0)]
        self.waiting = {key: one for key, one in self.waiting.items() if one.until_ms >= self._clock_ms}
        return NOBODY

    def _drop(self, parameters: Sequence[Any], dropped: int) -> Key:
        before_ms, _ = parameters
        marks = list(self.memory._marks)
        work = self.memory.drop(before_ms=before_ms, now_ms=marks[-1][0] if marks else 0)
        self._same_result("drop", NOBODY, dropped, work)
        self.memory._marks = marks
        return NOBODY

    # -- what they need

    def older(self, claim: Claim) -> dict[tuple[Key, bytes], Waiting]:
        """Return the older calls that wait for the linkage of a claim.

        An impossibly long wait began before the clock was set back.
        """
        return {
            place: one
            for place, one in self.waiting.items()
            if place[0] != claim.key
            and claim.linkage is not None
            and one.place == place_of(claim.key, claim.linkage)
            and self._clock_ms < one.until_ms <= self._clock_ms + LEASE_MAX_MS
            and (one.biz_time_ms or 0) < (claim.biz_time_ms or 0)
            and not self._has_outcome(place[0])
        }

    def _has_outcome(self, key: Key) -> bool:
        row = self.memory._rows.get(key)
        return row is not None and row.state in FINAL

    def _seen_now(self, claim: Claim) -> Seen:
        others = (other for other in self.memory._others(claim) if other.state is State.APPLIED)
        applied = tuple(one.change for one in others if (one.biz_time_ms or 0) >= (claim.biz_time_ms or 0))
        row = self.memory._rows.get(claim.key)
        return Seen(None, applied) if row is None else Seen(row.change, ())

    def _set_times(
        self, key: Key, now_ms: int, before: Row | None = None, *, created: bool = False
    ) -> None:
        """Set the times of a changed row that are by the clock of a gateway: outcomes never lower them."""
        row = self.memory._rows.get(key)
        if row is None:
            return
        updated_ms = now_ms if before is None else max(before.updated_ms, now_ms)
        created_ms = now_ms if created else row.created_ms
        self.memory._rows[key] = replace(row, created_ms=created_ms, updated_ms=updated_ms)

    def _row(self, found: Mapping[str, Any], key: Key) -> Row:
        """Return a row as the table has it, which has no more than the number of a decision."""
        ours = self.memory._rows.get(key)
        resolved = ours.resolved if ours is not None else None
        who, why, at_ms = (resolved.who, resolved.why, resolved.at_ms) if resolved else ("", "", 0)
        is_resolved = found["resolution"] is not None
        lease_left_ms = found["lease_until_ms"] - self._clock_ms
        more = {
            "lease_left_ms": lease_left_ms,
            "who": who if is_resolved else None,
            "why": why,
            "at_ms": at_ms,
        }
        return row_of({**found, **more}, self._clock_ms)

    def _same_result(self, operation: str, key: Key, ours: Any, work: Any) -> bool:
        theirs = _result_of(work)
        self._same(f"{operation} of {key.request_id}", ours, theirs)
        return bool(theirs)

    def _same_after(self, text: str, key: Key, done: Done) -> None:
        name = f"after {text.split('(', maxsplit=1)[0].rsplit('_', maxsplit=1)[-1]} of {key.request_id}"
        ours = None if done.wrote is None else self._row(done.wrote, key)
        self._same(name, ours, self.memory._rows.get(key))
        until_ms = max((one.until_ms for (of, _), one in self.waiting.items() if of == key), default=None)
        self._same(f"{name}, waits until", done.waits_until_ms, until_ms)

    def _same_row(self, name: str, row: Row) -> None:
        self._same(name, row, self.memory._rows.get(row.key))

    def _same(self, name: str, ours: object, theirs: object) -> None:
        if ours != theirs:
            self._break(name, f"PostgreSQL says {ours}, memory {theirs}")

    def _break(self, name: str, text: str) -> None:
        self._broken.append(("levels", f"{name}: {text}"))


def place_of(key: Key, linkage: bytes | None) -> tuple[object, ...]:
    """Return what a request can wait for, for which the database has the number of a lock."""
    return (linkage or key.request_id, key.api, key.client_id)
