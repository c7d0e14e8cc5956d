"""The effect of each operation on the tables, inside a transaction that the writer commits.

Each statement releases the GIL several times, and each time a busy event loop may take it for as long as
Python's switch interval. So what most requests need has few statements: one for all the claims of a
transaction, and one for all the outcomes. They do only what is usual, and leave the rest to `claim` and
`record`, which read first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from .. import Answer, Claim, Ending, Granted, Key, Resolution, Row
from ..rules import MARK_EVERY_MS, NO_OTHERS, Linkage, Times, answer_to, newest_of, shortened
from .rows import ToClaim, ToRecord, claim_columns, outcome_columns, parameters, row_of
from .statements import (
    BEGIN_CHANGE,
    CLAIM,
    DROP,
    DROP_MARKS,
    EXTEND,
    INSERT_RESOLUTION,
    IS_RECORDED,
    MARK,
    PUT_BACK,
    RECORD,
    REMOVE,
    RENEW,
    RESOLVE,
    SELECT_LINKAGE,
    SELECT_ROW,
    SHORTEN_LINKAGE,
    SHORTEN_ROW,
    insert_claims,
    record_outcomes,
)


class Tables:
    """The tables of one connection."""

    def __init__(self, connection: sqlite3.Connection, key_id: str, clock_ms: Callable[[], int]) -> None:
        self.connection = connection
        self._execute = connection.execute
        self._key_id = key_id
        self._clock_ms = clock_ms
        self._is_durable = True  # as LedgerFile has opened the connection
        self._changes_before = self._token_before = self._last_token = self._reserved_token = 0

    def begin(self, *, writes: bool, durable: bool = True, claims: int = 0) -> None:
        """Open a transaction; if it writes, wait for those of other processes first, and reserve tokens.

        One that is not `durable` becomes so with the next durable one, which syncs the whole log.
        """
        if durable is not self._is_durable:
            self._execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_durable = durable
        self._changes_before = self.connection.total_changes
        self._execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        if writes:
            (before,) = self._execute(BEGIN_CHANGE, (claims, claims)).fetchone()
            self._token_before = self._last_token = before
            self._reserved_token = before + claims

    @property
    def granted_token(self) -> int | None:
        """The last token granted since `begin`; None if no token was granted."""
        return self._last_token if self._last_token > self._token_before else None

    def commit(self) -> bool:
        """Commit everything since `begin`; return whether anything was written, and so synced."""
        has_changed = self.connection.total_changes > self._changes_before + 1  # the change of `begin`
        if has_changed and self._last_token != self._reserved_token:
            self._execute("UPDATE meta SET last_token = ?", (self._last_token,))
        self._execute("COMMIT" if has_changed else "ROLLBACK")
        return has_changed

    def look(self, claim: Claim, now_ms: int) -> Answer:
        """Answer a claim without writing."""
        times, row = self._times(now_ms), self.row(claim.key)
        if row is not None:
            row = shortened(row, times.lease_limit_ms) or row
        return answer_to(claim, row, self._linkage(claim, times), times.earliest_ms, token=0)

    def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Answer a claim, and write a grant."""
        times = self._times(now_ms)
        now_ms = times.earliest_ms
        linkage = self._linkage(claim, times, writes=True)
        row = self._shortened(claim.key, times.lease_limit_ms)
        answer = answer_to(claim, row, linkage, now_ms, token=self._last_token + 1)
        if isinstance(answer, Granted):
            if row is None:
                self.insert([ToClaim(claim, now_ms)], is_checked=True)
            else:
                self._last_token = answer.token
                lease = (answer.token, now_ms + claim.lease_ms, answer.was_in_doubt, now_ms)
                self._execute(CLAIM, (*lease, *parameters(claim.key)))
        return answer

    def insert(self, claims: Sequence[ToClaim], *, is_checked: bool = False) -> list[Granted | None]:
        """Grant claims that are new and meet nothing at their linkage; return None for the others.

        At most one claim for a row and for a linkage; without any checks if the claim is checked already.
        """
        size, columns = claim_columns(claims, self._clock_ms(), is_checked=is_checked)
        before = self._last_token
        inserted = self._execute(insert_claims(size), (*columns, self._key_id, before)).rowcount
        self._last_token += inserted
        if inserted == len(claims):
            tokens: Sequence[int] = range(before + 1, before + 1 + inserted)
        else:
            rows = [self.row(one.claim.key) for one in claims]
            tokens = [0 if row is None else row.token for row in rows]
        return [Granted(token, was_in_doubt=False) if token > before else None for token in tokens]

    def record_all(self, outcomes: Sequence[ToRecord]) -> bool:
        """Write outcomes, at most one for a row; return False if any of them is not written yet."""
        size, columns = outcome_columns(outcomes)
        return self._execute(record_outcomes(size), columns).rowcount == len(outcomes)

    def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Write another attempt with a new lease."""
        return self._update_held(RENEW, key, token, lease_ms, now_ms)

    def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Lengthen the lease."""
        return self._update_held(EXTEND, key, token, lease_ms, now_ms)

    def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Write the outcome; keep an outcome that is recorded."""
        said = (ending.state, ending.result_status, ending.result_code, ending.sealed)
        held = (*parameters(key), token)
        if self._execute(RECORD, (*said, now_ms, *held)).rowcount:
            return True
        return self._execute(IS_RECORDED, (*held, ending.state)).fetchone() is not None

    def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Remove the row, or restore the state before the attempt."""
        held = (*parameters(key), token)
        if self._execute(REMOVE, held).rowcount:
            return True
        return self._execute(PUT_BACK, (now_ms, *held)).rowcount > 0

    def resolve(self, key: Key, ending: Ending, resolution: Resolution) -> bool:
        """Write the decision with a new token, so that the claim's holder cannot write any more."""
        now_ms = resolution.at_ms
        times = self._times(now_ms)
        row = self._shortened(key, times.lease_limit_ms)
        if row is None or not row.is_in_doubt(times.earliest_ms):
            return False
        who = (key.client_id, key.api, key.request_id, ending.state)
        audit = self._execute(INSERT_RESOLUTION, (*who, resolution.who, resolution.why, now_ms)).lastrowid
        token = self._last_token = self._last_token + 1
        said = (ending.result_status, ending.result_code, ending.sealed)
        self._execute(RESOLVE, (ending.state, token, *said, audit, now_ms, *parameters(key)))
        return True

    def touch(self) -> None:
        """Write something, so that the commit makes everything before it durable."""
        self._execute("UPDATE meta SET last_token = last_token")

    def mark(self, *, before_ms: int, now_ms: int) -> None:
        """Mark the last token of this time, and delete marks that `drop` no longer needs."""
        last = {"token": self._last_token, "now_ms": now_ms, "every_ms": MARK_EVERY_MS}
        self._execute(MARK, last)
        self._execute(DROP_MARKS, (before_ms,))

    def drop(self, *, before_ms: int, limit: int) -> int:
        """Delete the oldest rows that have an outcome."""
        return self._execute(DROP, {"before_ms": before_ms, "limit": limit}).rowcount

    def row(self, key: Key) -> Row | None:
        """Return one row."""
        found = self._execute(SELECT_ROW, parameters(key)).fetchone()
        return None if found is None else row_of(found)

    def _times(self, asked_ms: int) -> Times:
        """Read the clock inside the transaction: no other process can get a lease before its commit."""
        return Times.of(asked_ms, self._clock_ms())

    def _shortened(self, key: Key, limit_ms: int) -> Row | None:
        """Return one row, after shortening an impossibly long lease."""
        row = self.row(key)
        shorter = None if row is None else shortened(row, limit_ms)
        if shorter is None:
            return row
        self._execute(SHORTEN_ROW, (limit_ms, limit_ms, *parameters(key)))
        return shorter

    def _update_held(self, statement: str, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        times = self._times(now_ms)
        parameters = {
            "request_id": key.request_id,
            "api": key.api,
            "client_id": key.client_id,
            "token": token,
            "lease_until_ms": times.earliest_ms + lease_ms,
            "now_ms": times.earliest_ms,
            "latest_ms": times.latest_ms,
        }
        return self._execute(statement, parameters).rowcount > 0

    def _linkage(self, claim: Claim, times: Times, *, writes: bool = False) -> Linkage:
        if claim.linkage is None:
            return NO_OTHERS
        others = {
            "client_id": claim.key.client_id,
            "api": claim.key.api,
            "request_id": claim.key.request_id,
            "linkage": claim.linkage,
            "biz_time_ms": claim.biz_time_ms,
            "fingerprint": claim.fingerprint,
            "now_ms": times.earliest_ms,
        }
        found = self._execute(SELECT_LINKAGE, others).fetchall()
        if not found:
            return NO_OTHERS
        busy_until_ms = max(lease_until_ms for _, _, lease_until_ms in found)
        if busy_until_ms > (limit_ms := times.lease_limit_ms):
            busy_until_ms = limit_ms
            if writes:
                self._execute(SHORTEN_LINKAGE, (limit_ms, limit_ms, claim.linkage))
        applied = [(biz_time_ms, content) for biz_time_ms, content, _ in found if content is not None]
        return Linkage(newest_of(applied), busy_until_ms)
