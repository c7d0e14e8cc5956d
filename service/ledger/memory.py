"""The ledger in this process's memory: it follows all rules, until the process exits."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import dropwhile
from typing import ClassVar

from . import Answer, Claim, Ending, Granted, InDoubt, InProgress, Key, LinkageBusy, Resolution, Row, State
from .lease import WALL_CLOCK
from .rules import MARK_EVERY_MS, Linkage, Times, answer_to, counted, newest_of, shortened

UNFINISHED = frozenset({State.SENDING, State.IN_DOUBT})


class MemoryLedger:
    """Rows in a dictionary. Each operation is atomic, because none of them awaits anything."""

    outlives_process: ClassVar[bool] = False

    def __init__(self, clock_ms: Callable[[], int] = WALL_CLOCK.now_ms) -> None:
        self._clock_ms = clock_ms
        self._rows: dict[Key, Row] = {}
        self._unfinished: set[Key] = set()
        self._by_linkage: defaultdict[bytes, dict[Key, None]] = defaultdict(dict)
        self._last_token = 0
        self._last_change = 0
        self._marks: list[tuple[int, int]] = []
        """Times at which the clock was right, with the last token of each; see `Ledger.drop`."""

    @property
    def log_bytes(self) -> int:
        """Return 0: there is no log."""
        return 0

    async def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Answer by the rules, and write a grant."""
        times = Times.of(now_ms, self._clock_ms())
        now_ms = times.earliest_ms
        row = self._read(claim.key, times.lease_limit_ms)
        answer = answer_to(claim, row, self._linkage(claim, times), now_ms, token=self._last_token + 1)
        if not isinstance(answer, Granted):
            return answer
        self._last_token = answer.token
        self._put(_new_row(claim, answer, now_ms) if row is None else _claimed(row, claim, answer, now_ms))
        return answer

    async def look(self, claim: Claim, now_ms: int) -> Answer:
        """Answer by the rules."""
        times = Times.of(now_ms, self._clock_ms())
        row = self._read(claim.key, times.lease_limit_ms)
        return answer_to(claim, row, self._linkage(claim, times), times.earliest_ms, token=0)

    async def queue(self, claim: Claim) -> None:
        """Do nothing: requests wait in the order of their arrival at the ledger."""

    def leave(self, key: Key) -> None:
        """Do nothing."""

    async def wait(self, _answer: InProgress | LinkageBusy, timeout_s: float) -> None:
        """Wait: nobody says that another process has ended its attempt."""
        await asyncio.sleep(timeout_s)

    async def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Write another attempt with a new lease."""
        return self._lengthen(key, token, lease_ms, now_ms, attempts=1)

    async def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Lengthen the lease."""
        return self._lengthen(key, token, lease_ms, now_ms, attempts=0)

    async def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Write the outcome; keep an outcome that is recorded."""
        row = self._held(key, token)
        if row is None:
            return False
        if row.state in UNFINISHED:
            updated_ms = max(row.updated_ms, now_ms)
            self._put(replace(row, state=ending.state, ending=ending, updated_ms=updated_ms))
            return True
        return row.state is ending.state

    async def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Remove the row, or restore the state before the attempt."""
        row = self._held(key, token)
        if row is None or row.state is not State.SENDING:
            return False
        if row.was_in_doubt or row.ending is not None:
            before = State.IN_DOUBT if row.was_in_doubt else State.GATEWAY_REJECTED
            updated_ms = max(row.updated_ms, now_ms)
            self._put(replace(row, state=before, attempts=row.attempts - 1, updated_ms=updated_ms))
        else:
            self._remove(row)
        return True

    async def find(self, request_id: str) -> Sequence[Row]:
        """Return the rows of every client id and API."""
        found = (row for row in self._rows.values() if row.key.request_id == request_id)
        return sorted(found, key=lambda row: (row.key.api, row.key.client_id))

    async def resolve(self, key: Key, ending: Ending, *, who: str, why: str, now_ms: int) -> bool:
        """Write the decision with a new token, so that the claim's holder cannot write any more."""
        times = Times.of(now_ms, self._clock_ms())
        row = self._read(key, times.lease_limit_ms)
        if row is None or not row.is_in_doubt(times.earliest_ms):
            return False
        self._last_token += 1
        resolved = replace(
            row,
            state=ending.state,
            token=self._last_token,
            ending=replace(ending, resolved_by_operator=True),
            resolved=Resolution(who, why, now_ms),
            updated_ms=max(row.updated_ms, now_ms),
        )
        self._put(resolved)
        return True

    async def rows(
        self, *, since_ms: int = 0, after: int = 0, in_doubt_at_ms: int | None = None
    ) -> AsyncIterator[Row]:
        """Yield the rows that exist at the first step."""
        rows = sorted(self._rows.values(), key=lambda row: row.change)
        recent = dropwhile(lambda row: row.updated_ms < since_ms or row.change <= after, rows)
        for row in rows if in_doubt_at_ms is not None else recent:
            if in_doubt_at_ms is None or row.is_in_doubt(in_doubt_at_ms):
                yield row

    async def in_doubt(self, now_ms: int) -> Sequence[InDoubt]:
        """Count those in doubt."""
        rows = (self._rows[key] for key in self._unfinished)
        return counted(row for row in rows if row.is_in_doubt(now_ms))

    async def drop(self, *, before_ms: int, now_ms: int) -> int:
        """Delete old rows that have an outcome."""
        if not self._marks or self._marks[-1][0] <= now_ms - MARK_EVERY_MS:
            self._marks.append((now_ms, self._last_token))
        older = [mark for mark in self._marks if mark[0] < before_ms]
        del self._marks[: max(len(older) - 1, 0)]
        token_max = older[-1][1] if older else 0
        ended = (row for row in self._rows.values() if row.state not in UNFINISHED)
        old = [row for row in ended if row.updated_ms < before_ms and row.token <= token_max]
        for row in old:
            self._remove(row)
        return len(old)

    async def close(self) -> Sequence[Key]:
        """Do nothing."""
        return ()

    def _put(self, row: Row) -> None:
        self._last_change += 1
        self._rows[row.key] = replace(row, change=self._last_change)
        (self._unfinished.add if row.state in UNFINISHED else self._unfinished.discard)(row.key)
        if row.linkage is not None:
            self._by_linkage[row.linkage][row.key] = None

    def _remove(self, row: Row) -> None:
        del self._rows[row.key]
        self._unfinished.discard(row.key)
        if row.linkage is not None:
            del self._by_linkage[row.linkage][row.key]
            if not self._by_linkage[row.linkage]:
                del self._by_linkage[row.linkage]

    def _read(self, key: Key, limit_ms: int) -> Row | None:
        """Return a row, after shortening an impossibly long lease."""
        row = self._rows.get(key)
        if row is not None and (shorter := shortened(row, limit_ms)) is not None:
            self._put(shorter)
        return self._rows.get(key)

    def _held(self, key: Key, token: int) -> Row | None:
        row = self._rows.get(key)
        return row if row is not None and row.token == token else None

    def _lengthen(self, key: Key, token: int, lease_ms: int, now_ms: int, *, attempts: int) -> bool:
        """Lengthen a lease unless another claim has overtaken the row or its linkage."""
        times, row = Times.of(now_ms, self._clock_ms()), self._held(key, token)
        if row is None or row.state not in (UNFINISHED if attempts else {State.SENDING}):
            return False
        holds = row.state is State.SENDING and row.lease_until_ms > times.latest_ms
        if not holds and any(other.lease_until_ms > times.earliest_ms for other in self._sending(row)):
            return False
        now_ms, in_doubt = times.earliest_ms, row.was_in_doubt or attempts > 0
        attempts += row.attempts
        self._put(_sending(row, now_ms + lease_ms, now_ms, attempts=attempts, was_in_doubt=in_doubt))
        return True

    def _sending(self, row: Row | Claim) -> Iterator[Row]:
        return (other for other in self._others(row) if other.state is State.SENDING)

    def _others(self, row: Row | Claim) -> Iterator[Row]:
        """Yield the other requests for the linkage with the same client id and API."""
        if row.linkage is None:
            return
        for key in self._by_linkage.get(row.linkage, ()):
            if key != row.key and (key.client_id, key.api) == (row.key.client_id, row.key.api):
                yield self._rows[key]

    def _linkage(self, claim: Claim, times: Times) -> Linkage:
        for other in list(self._others(claim)):
            self._read(other.key, times.lease_limit_ms)
        busy_ms = max((other.lease_until_ms for other in self._sending(claim)), default=0)
        applied = [
            (other.biz_time_ms, other.fingerprint)
            for other in self._others(claim)
            if other.state is State.APPLIED and other.biz_time_ms is not None
        ]
        return Linkage(newest_of(applied), busy_ms if busy_ms > times.earliest_ms else 0)


def _new_row(claim: Claim, granted: Granted, now_ms: int) -> Row:
    return Row(
        key=claim.key,
        caller=claim.caller,
        fingerprint=claim.fingerprint,
        linkage=claim.linkage,
        biz_time_ms=claim.biz_time_ms,
        state=State.SENDING,
        attempts=1,
        token=granted.token,
        lease_until_ms=now_ms + claim.lease_ms,
        created_ms=now_ms,
        updated_ms=now_ms,
    )


def _claimed(row: Row, claim: Claim, granted: Granted, now_ms: int) -> Row:
    claimed = replace(row, token=granted.token)
    lease_until_ms, attempts = now_ms + claim.lease_ms, row.attempts + 1
    return _sending(claimed, lease_until_ms, now_ms, attempts=attempts, was_in_doubt=granted.was_in_doubt)


def _sending(row: Row, lease_until_ms: int, now_ms: int, *, attempts: int, was_in_doubt: bool) -> Row:
    before = row.ending
    if before is not None and was_in_doubt:
        before = replace(before, state=State.IN_DOUBT)
    return replace(
        row,
        state=State.SENDING,
        ending=before,
        attempts=attempts,
        lease_until_ms=lease_until_ms,
        was_in_doubt=was_in_doubt,
        updated_ms=now_ms,
    )
