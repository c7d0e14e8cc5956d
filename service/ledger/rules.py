"""The rules by which every level answers a claim: pure, over what the level has read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from . import (
    FINAL,
    Answer,
    Claim,
    ClaimRejected,
    Granted,
    InProgress,
    Known,
    LinkageBusy,
    Reused,
    Row,
    State,
)
from .lease import LEASE_MAX_MS

MARK_EVERY_MS: Final = 3_600_000
"""The least time between two marks of the clock; see `Ledger.drop`."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The newest that was applied to a linkage under other request ids."""

    biz_time_ms: int
    fingerprints: Sequence[bytes]
    """The contents applied with that very biz_time."""


@dataclass(frozen=True, slots=True)
class Linkage:
    """What else is known of a claim's linkage."""

    newest: Applied | None = None
    busy_until_ms: int = 0
    """The longest lease of another request for it that is being sent."""


def shortened(row: Row, now_ms: int) -> Row | None:
    """Return a row whose lease ends later than any lease can, with the longest one possible; else None."""
    until_ms = now_ms + LEASE_MAX_MS
    if row.state is not State.SENDING or row.lease_until_ms <= until_ms:
        return None
    return replace(row, lease_until_ms=until_ms)


def answer_to(  # noqa: PLR0911  (a list of cases, in their order)
    claim: Claim, row: Row | None, linkage: Linkage, now_ms: int, *, token: int
) -> Answer:
    """Answer a claim. In this order: known id, future, stale or tie, busy, granted with this token."""
    if row is not None:
        if row.fingerprint != claim.fingerprint:
            return Reused(row.state)
        if row.state in FINAL and row.ending is not None:
            return Known(row.ending)
        if row.state is State.SENDING and row.lease_until_ms > now_ms:
            return InProgress(row.lease_until_ms)
        if row.state is not State.GATEWAY_REJECTED and not claim.may_repeat:
            return ClaimRejected.IN_DOUBT
    elif refused := _refused_for_time(claim, linkage.newest):
        return refused
    was_in_doubt = row is not None and row.state is not State.GATEWAY_REJECTED
    if linkage.busy_until_ms > now_ms:
        return LinkageBusy(linkage.busy_until_ms, was_in_doubt=was_in_doubt)
    return Granted(token, was_in_doubt=was_in_doubt)


def _refused_for_time(claim: Claim, newest: Applied | None) -> ClaimRejected | None:
    """Compare a new id's biz_time with now and with what was applied; a known id is never stale."""
    if claim.biz_time_ms is None:
        return None
    if claim.biz_time_max_ms is not None and claim.biz_time_ms > claim.biz_time_max_ms:
        return ClaimRejected.IN_FUTURE
    if newest is None or claim.biz_time_ms > newest.biz_time_ms:
        return None
    if claim.biz_time_ms < newest.biz_time_ms:
        return ClaimRejected.STALE
    # The same news under a new id is sent: AlipayHK sees no change in it.
    return None if claim.fingerprint in newest.fingerprints else ClaimRejected.TIE
