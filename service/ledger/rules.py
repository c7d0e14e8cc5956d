"""The rules that decide every level's answer to a claim. They are pure functions of what was read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from . import (
    FINAL,
    Answer,
    Claim,
    ClaimRejected,
    Ending,
    Granted,
    InDoubt,
    InProgress,
    Known,
    LinkageBusy,
    Reused,
    Row,
    State,
)
from .lease import LEASE_MAX_MS

MARK_EVERY_MS: Final = 3_600_000
"""Minimum time between two marks of the clock; see `Ledger.drop`."""

COUNTED_MAX: Final = 2_000
"""How many requests in doubt a database counts: at most so many with a linkage, and so many without.

Then the numbers are too low, but requests of one kind never hide those of the other.
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the answer to a claim needs to know of the row with its request id; a `Row` has it, too."""

    fingerprint: bytes
    state: State
    ending: Ending | None
    lease_until_ms: int


@dataclass(frozen=True, slots=True)
class Applied:
    """The requests with the newest biz_time that were applied to a linkage under other request ids."""

    biz_time_ms: int
    fingerprints: Sequence[bytes]
    """Their contents."""


@dataclass(frozen=True, slots=True)
class Linkage:
    """The other requests of a claim's linkage."""

    newest: Applied | None = None
    busy_until_ms: int = 0
    """When the longest lease of another request in SENDING expires; 0 if there is no such request."""


NO_OTHERS: Final = Linkage()


def newest_of(applied: Sequence[tuple[int, bytes]]) -> Applied | None:
    """Return the newest of applied requests, each a biz_time and a fingerprint, or None."""
    if not applied:
        return None
    newest_ms = max(biz_time_ms for biz_time_ms, _ in applied)
    return Applied(newest_ms, [content for biz_time_ms, content in applied if biz_time_ms == newest_ms])


@dataclass(frozen=True, slots=True)
class Times:
    """The time at which an operation was asked for, and the time inside its transaction.

    In between the process may have been suspended or its clock set, and others may have got leases.
    """

    earliest_ms: int
    """The time at which it is decided: a lease of another request that holds at either time holds."""
    latest_ms: int
    """Its own lease must still hold then."""

    @classmethod
    def of(cls, asked_ms: int, now_ms: int) -> Times:
        """Return two times, which a clock that was set back gives in the other order."""
        return cls(min(asked_ms, now_ms), max(asked_ms, now_ms))

    @property
    def lease_limit_ms(self) -> int:
        """When the longest possible lease expires; a later one is from before the clock was set back."""
        return self.latest_ms + LEASE_MAX_MS


def shortened(row: Row, limit_ms: int) -> Row | None:
    """Return a row with its impossibly long lease cut to the longest possible one, or None."""
    if row.state is not State.SENDING or row.lease_until_ms <= limit_ms:
        return None
    return replace(row, lease_until_ms=limit_ms)


def recorded_ending(
    state: State, status: str, code: str, sealed: bytes, *, was_in_doubt: bool, is_resolved: bool
) -> Ending:
    """Return the outcome that a row records; in SENDING, that of an earlier attempt."""
    before = State.IN_DOUBT if was_in_doubt else State.GATEWAY_REJECTED
    came = before if state is State.SENDING else state
    return Ending(came, status, code, sealed, resolved_by_operator=is_resolved)


def answer_to(  # noqa: PLR0911  (an ordered list of cases)
    claim: Claim, row: Row | Recorded | None, linkage: Linkage, now_ms: int, *, token: int
) -> Answer:
    """Answer a claim; a grant gets `token`. The checks in order: known id, future, stale or tie, busy."""
    if row is not None:
        if row.fingerprint != claim.fingerprint:
            return Reused(row.state)
        if row.state in FINAL and row.ending is not None:
            return Known(row.ending)
        if row.state is State.SENDING and row.lease_until_ms > now_ms:
            return InProgress(row.lease_until_ms)
        if row.state is not State.GATEWAY_REJECTED and not claim.may_repeat:
            return ClaimRejected.IN_DOUBT
    elif rejected := _rejected_for_time(claim, linkage.newest):
        return rejected
    was_in_doubt = row is not None and row.state is not State.GATEWAY_REJECTED
    if linkage.busy_until_ms > now_ms:
        return LinkageBusy(linkage.busy_until_ms, was_in_doubt=was_in_doubt)
    return Granted(token, was_in_doubt=was_in_doubt)


def counted(rows: Iterable[Row]) -> Sequence[InDoubt]:
    """Count rows by their API."""
    created: dict[str, list[int]] = {}
    for row in rows:
        created.setdefault(row.key.api, []).append(row.created_ms)
    return [InDoubt(api, len(times), min(times)) for api, times in created.items()]


def is_in_future(claim: Claim) -> bool:
    """Return whether a claim's biz_time is too far ahead for a new request."""
    if claim.biz_time_ms is None or claim.biz_time_max_ms is None:
        return False
    return claim.biz_time_ms > claim.biz_time_max_ms


def _rejected_for_time(claim: Claim, newest: Applied | None) -> ClaimRejected | None:
    """Compare a new id's biz_time with now and with the newest applied one. A known id is never stale."""
    if claim.biz_time_ms is None:
        return None
    if is_in_future(claim):
        return ClaimRejected.IN_FUTURE
    if newest is None or claim.biz_time_ms > newest.biz_time_ms:
        return None
    if claim.biz_time_ms < newest.biz_time_ms:
        return ClaimRejected.STALE
    # The same content under a new id may be sent: it changes nothing at AlipayHK.
    return None if claim.fingerprint in newest.fingerprints else ClaimRejected.TIE
