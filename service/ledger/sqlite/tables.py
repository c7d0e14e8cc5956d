"""The effect of each operation on the tables, inside a transaction that the writer commits."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from .. import Answer, Claim, Ending, Granted, Key, Resolution, Row, State
from ..lease import LEASE_MAX_MS
from ..rules import MARK_EVERY_MS, Linkage, answer_to, newest_of, shortened
from .statements import (
    CLAIM,
    DROP,
    DROP_MARKS,
    EXTEND,
    INSERT,
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
)

_NOTHING_KNOWN: Final = Linkage()


class Tables:
    """The tables of one connection."""

    def __init__(self, connection: sqlite3.Connection, key_id: str) -> None:
        self.connection = connection
        self._execute = connection.execute
        self._key_id = key_id
        self._last_token: int | None = None
        self._changes_before = 0
        self._is_durable = True  # as LedgerFile has opened the connection

    def begin(self, *, writes: bool, durable: bool = True) -> None:
        """Open a transaction; if it writes, wait for those of other processes first.

        One that is not `durable` becomes so with the next durable one, which syncs the whole log.
        """
        if durable is not self._is_durable:
            self._execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_durable = durable
        self._last_token = None
        self._changes_before = self.connection.total_changes
        self._execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    @property
    def granted_token(self) -> int | None:
        """The last token granted since `begin`; None if no token was granted."""
        return self._last_token

    def commit(self) -> bool:
        """Commit everything since `begin`; return whether anything was written, and so synced."""
        has_changed = self.connection.total_changes > self._changes_before
        if has_changed:
            self._execute(
                "UPDATE meta SET last_token = coalesce(?, last_token), last_change = last_change + 1",
                (self._last_token,),
            )
        self._execute("COMMIT")
        return has_changed

    def look(self, claim: Claim, now_ms: int) -> Answer:
        """Answer a claim without writing."""
        row = self.row(claim.key)
        if row is not None:
            row = shortened(row, now_ms) or row
        return answer_to(claim, row, self._linkage(claim, now_ms), now_ms, token=0)

    def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Answer a claim, and write a grant."""
        linkage, token = self._linkage(claim, now_ms, writes=True), self._next_token()
        # Optimistic insert: almost every id is new, so INSERT first and read a row only on conflict.
        answer = answer_to(claim, None, linkage, now_ms, token=token)
        if isinstance(answer, Granted) and self._insert(claim, token, now_ms):
            self._last_token = token
            return answer
        answer = answer_to(claim, self._shortened(claim.key, now_ms), linkage, now_ms, token=token)
        if isinstance(answer, Granted):
            self._last_token = token
            lease = (token, now_ms + claim.lease_ms, answer.was_in_doubt, now_ms)
            self._execute(CLAIM, (*lease, *_parameters(claim.key)))
        return answer

    def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Write another attempt with a new lease."""
        return self._update_held(RENEW, key, token, lease_ms, now_ms)

    def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Lengthen the lease."""
        return self._update_held(EXTEND, key, token, lease_ms, now_ms)

    def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Write the outcome; keep an outcome that is recorded."""
        said = (ending.state, ending.result_status, ending.result_code, ending.sealed)
        held = (*_parameters(key), token)
        if self._execute(RECORD, (*said, now_ms, *held)).rowcount:
            return True
        return self._execute(IS_RECORDED, (*held, ending.state)).fetchone() is not None

    def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Remove the row, or restore the state before the attempt."""
        held = (*_parameters(key), token)
        if self._execute(REMOVE, held).rowcount:
            return True
        return self._execute(PUT_BACK, (now_ms, *held)).rowcount > 0

    def resolve(self, key: Key, ending: Ending, resolution: Resolution) -> bool:
        """Write the decision with a new token, so that the claim's holder cannot write any more."""
        now_ms = resolution.at_ms
        row = self._shortened(key, now_ms)
        if row is None or not row.is_in_doubt(now_ms):
            return False
        who = (key.client_id, key.api, key.request_id, ending.state)
        audit = self._execute(INSERT_RESOLUTION, (*who, resolution.who, resolution.why, now_ms)).lastrowid
        token = self._last_token = self._next_token()
        said = (ending.result_status, ending.result_code, ending.sealed)
        self._execute(RESOLVE, (ending.state, token, *said, audit, now_ms, *_parameters(key)))
        return True

    def touch(self) -> None:
        """Write something, so that the commit makes everything before it durable."""
        self._execute("UPDATE meta SET last_token = last_token")

    def mark(self, *, before_ms: int, now_ms: int) -> None:
        """Mark the last token of this time, and delete marks that `drop` no longer needs."""
        self._execute(MARK, {"now_ms": now_ms, "every_ms": MARK_EVERY_MS})
        self._execute(DROP_MARKS, (before_ms,))

    def drop(self, *, before_ms: int, limit: int) -> int:
        """Delete the oldest rows that have an outcome."""
        return self._execute(DROP, {"before_ms": before_ms, "limit": limit}).rowcount

    def row(self, key: Key) -> Row | None:
        """Return one row."""
        found = self._execute(SELECT_ROW, _parameters(key)).fetchone()
        return None if found is None else row_of(found)

    def _shortened(self, key: Key, now_ms: int) -> Row | None:
        """Return one row, after shortening an impossibly long lease."""
        row = self.row(key)
        shorter = None if row is None else shortened(row, now_ms)
        if shorter is None:
            return row
        until_ms = shorter.lease_until_ms
        self._execute(SHORTEN_ROW, (until_ms, until_ms, *_parameters(key)))
        return shorter

    def _next_token(self) -> int:
        if self._last_token is not None:
            return self._last_token + 1
        (last_token,) = self._execute("SELECT last_token FROM meta").fetchone()
        return int(last_token) + 1

    def _update_held(self, statement: str, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        parameters = {
            "request_id": key.request_id,
            "api": key.api,
            "client_id": key.client_id,
            "token": token,
            "lease_until_ms": now_ms + lease_ms,
            "now_ms": now_ms,
        }
        return self._execute(statement, parameters).rowcount > 0

    def _insert(self, claim: Claim, token: int, now_ms: int) -> bool:
        key, lease_until_ms = claim.key, now_ms + claim.lease_ms
        who = (key.client_id, key.api, key.request_id, claim.caller, self._key_id)
        what = (claim.fingerprint, claim.linkage, claim.biz_time_ms)
        return self._execute(INSERT, (*who, *what, token, lease_until_ms, now_ms, now_ms)).rowcount > 0

    def _linkage(self, claim: Claim, now_ms: int, *, writes: bool = False) -> Linkage:
        if claim.linkage is None:
            return _NOTHING_KNOWN
        others = {
            "client_id": claim.key.client_id,
            "api": claim.key.api,
            "request_id": claim.key.request_id,
            "linkage": claim.linkage,
            "biz_time_ms": claim.biz_time_ms,
            "fingerprint": claim.fingerprint,
            "now_ms": now_ms,
        }
        found = self._execute(SELECT_LINKAGE, others).fetchall()
        if not found:
            return _NOTHING_KNOWN
        busy_until_ms = max(lease_until_ms for _, _, lease_until_ms in found)
        if busy_until_ms > (until_ms := now_ms + LEASE_MAX_MS):
            busy_until_ms = until_ms
            if writes:
                self._execute(SHORTEN_LINKAGE, (until_ms, until_ms, claim.linkage))
        applied = [(biz_time_ms, content) for biz_time_ms, content, _ in found if content is not None]
        return Linkage(newest_of(applied), busy_until_ms)


def row_of(found: Any) -> Row:
    """Return the Row of a statement that selects whole rows."""
    client_id, api, request_id, caller, fingerprint, linkage, biz_time_ms, state, *more = found
    attempts, token, lease_until_ms, created_ms, updated_ms, was_in_doubt, *more = more
    status, code, sealed, who, why, at_ms, change, _ = more
    state = State(state)
    resolved = None if who is None else Resolution(who, why, at_ms)
    ending = None
    if status is not None:
        before = State.IN_DOUBT if was_in_doubt else State.GATEWAY_REJECTED
        came = before if state is State.SENDING else state
        ending = Ending(came, status, code, sealed, resolved_by_operator=resolved is not None)
    return Row(
        key=Key(client_id, api, request_id),
        caller=caller,
        fingerprint=fingerprint,
        linkage=linkage,
        biz_time_ms=biz_time_ms,
        state=state,
        attempts=attempts,
        token=token,
        lease_until_ms=lease_until_ms,
        created_ms=created_ms,
        updated_ms=updated_ms,
        ending=ending,
        was_in_doubt=bool(was_in_doubt),
        resolved=resolved,
        change=change,
    )


def _parameters(key: Key) -> tuple[str, str, str]:
    return key.request_id, key.api, key.client_id
