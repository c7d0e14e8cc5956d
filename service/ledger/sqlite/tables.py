"""What each operation does to the tables, inside a transaction that is somebody else's to commit."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from .. import Answer, Claim, Ending, Granted, Key, Resolution, Row, State
from ..lease import LEASE_MAX_MS
from ..rules import MARK_EVERY_MS, Applied, Linkage, answer_to, shortened
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

    def begin(self, *, writes: bool) -> None:
        """Begin a transaction, behind those of other processes if it writes."""
        self._last_token = None
        self._execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    @property
    def granted_token(self) -> int | None:
        """The last token that the present transaction granted, or the last one did; None if it did not."""
        return self._last_token

    def commit(self) -> None:
        """Make everything since `begin` durable."""
        if self._last_token is not None:
            self._execute("UPDATE meta SET last_token = ?", (self._last_token,))
        self._execute("COMMIT")

    def look(self, claim: Claim, now_ms: int) -> Answer:
        """Answer a claim, and write nothing."""
        row = self.row(claim.key)
        if row is not None:
            row = shortened(row, now_ms) or row
        return answer_to(claim, row, self._linkage(claim, now_ms), now_ms, token=0)

    def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Answer a claim, and write what was granted."""
        linkage, token = self._linkage(claim, now_ms, writes=True), self._next_token()
        # Nearly every claim is of a new id, and that it is so the insert finds out by itself.
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
        """Count another attempt."""
        return self._go_on(RENEW, key, token, lease_ms, now_ms)

    def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Lengthen the lease."""
        return self._go_on(EXTEND, key, token, lease_ms, now_ms)

    def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Write what came of it, once."""
        said = (ending.state, ending.result_status, ending.result_code, ending.sealed)
        held = (*_parameters(key), token)
        if self._execute(RECORD, (*said, now_ms, *held)).rowcount:
            return True
        return self._execute(IS_RECORDED, (*held, ending.state)).fetchone() is not None

    def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Remove the row, or put it back to where it was."""
        held = (*_parameters(key), token)
        if self._execute(REMOVE, held).rowcount:
            return True
        return self._execute(PUT_BACK, (now_ms, *held)).rowcount > 0

    def resolve(self, key: Key, ending: Ending, resolution: Resolution) -> bool:
        """End a doubt, and fence off whoever may still hold the claim."""
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

    def mark(self, *, before_ms: int, now_ms: int) -> None:
        """Note the last token of this time, and forget marks that `drop` needs no more."""
        self._execute(MARK, {"now_ms": now_ms, "every_ms": MARK_EVERY_MS})
        self._execute(DROP_MARKS, (before_ms,))

    def drop(self, *, before_ms: int, limit: int) -> int:
        """Forget what ended longest ago."""
        return self._execute(DROP, {"before_ms": before_ms, "limit": limit}).rowcount

    def row(self, key: Key) -> Row | None:
        """Read one row."""
        found = self._execute(SELECT_ROW, _parameters(key)).fetchone()
        return None if found is None else row_of(found)

    def _shortened(self, key: Key, now_ms: int) -> Row | None:
        """Read one row, and shorten its lease where that is too long."""
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

    def _go_on(self, statement: str, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
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
        others = (claim.key.client_id, claim.key.api, claim.key.request_id)
        # What is applied and older than the claim has no say.
        places = (claim.linkage, claim.biz_time_ms, *others, claim.linkage, now_ms, *others)
        found = self._execute(SELECT_LINKAGE, places).fetchall()
        if not found:
            return _NOTHING_KNOWN
        busy_until_ms = max(lease_until_ms for _, _, lease_until_ms in found)
        if busy_until_ms > (until_ms := now_ms + LEASE_MAX_MS):
            busy_until_ms = until_ms
            if writes:
                self._execute(SHORTEN_LINKAGE, (until_ms, until_ms, claim.linkage))
        applied = [(biz_time_ms, content) for biz_time_ms, content, _ in found if content is not None]
        return Linkage(_newest(applied), busy_until_ms)


def _newest(applied: list[tuple[int, bytes]]) -> Applied | None:
    if not applied:
        return None
    newest_ms = max(biz_time_ms for biz_time_ms, _ in applied)
    return Applied(newest_ms, [content for biz_time_ms, content in applied if biz_time_ms == newest_ms])


def row_of(found: Any) -> Row:
    """Read what a statement that selects whole rows gave."""
    client_id, api, request_id, caller, fingerprint, linkage, biz_time_ms, state, *more = found
    attempts, token, lease_until_ms, created_ms, updated_ms, was_in_doubt, *more = more
    status, code, sealed, who, why, at_ms, _ = more
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
    )


def _parameters(key: Key) -> tuple[str, str, str]:
    return key.request_id, key.api, key.client_id
