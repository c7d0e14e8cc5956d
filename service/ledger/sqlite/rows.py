"""Rows as the statements read and write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import Claim, Ending, Key, Resolution, Row, State
from ..rules import recorded_ending
from .statements import CLAIM_WIDTH, OUTCOME_WIDTH

SIZES: Final = (1, 4, 16)
"""How many claims or outcomes one statement takes; the rest of it is filled up with NULL."""


@dataclass(frozen=True, slots=True)
class ToClaim:
    """A claim, and the time by its holder's clock."""

    claim: Claim
    now_ms: int


@dataclass(frozen=True, slots=True)
class ToRecord:
    """An outcome, its holder's token, and the time by the holder's clock."""

    key: Key
    token: int
    ending: Ending
    now_ms: int


def parameters(key: Key) -> tuple[str, str, str]:
    """Return the parameters of statements that select by a key."""
    return key.request_id, key.api, key.client_id


def claim_columns(
    claims: Sequence[ToClaim], clock_ms: int, *, is_checked: bool
) -> tuple[int, list[object]]:
    """Return a size and the parameters of so many claims for `insert_claims`; see `rules.Times`."""
    columns: list[object] = []
    for number, one in enumerate(claims):
        claim, key, now_ms = one.claim, one.claim.key, min(one.now_ms, clock_ms)
        columns += (number, is_checked, key.client_id, key.api, key.request_id, claim.caller)
        columns += (claim.fingerprint, claim.linkage, claim.biz_time_ms, now_ms + claim.lease_ms, now_ms)
    return _filled(columns, CLAIM_WIDTH)


def outcome_columns(outcomes: Sequence[ToRecord]) -> tuple[int, list[object]]:
    """Return a size and the parameters of so many outcomes for `record_outcomes`."""
    columns: list[object] = []
    for one in outcomes:
        ending = one.ending
        columns += (ending.state, ending.result_status, ending.result_code, ending.sealed, one.now_ms)
        columns += (*parameters(one.key), one.token)
    return _filled(columns, OUTCOME_WIDTH)


def _filled(columns: list[object], width: int) -> tuple[int, list[object]]:
    size = next(size for size in SIZES if size * width >= len(columns))
    return size, columns + [None] * (size * width - len(columns))


def row_of(found: Any) -> Row:
    """Return the Row of a statement that selects whole rows."""
    client_id, api, request_id, caller, fingerprint, linkage, biz_time_ms, state, *more = found
    attempts, token, lease_until_ms, created_ms, updated_ms, was_in_doubt, *more = more
    status, code, sealed, who, why, at_ms, change, _ = more
    state = State(state)
    resolved = None if who is None else Resolution(who, why, at_ms)
    ending = None
    if status is not None:
        doubts = {"was_in_doubt": bool(was_in_doubt), "is_resolved": resolved is not None}
        ending = recorded_ending(state, status, code, sealed, **doubts)
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
