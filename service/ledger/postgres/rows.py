"""Rows and parameters as the statements read and write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import Answer, Claim, Ending, InProgress, Key, LinkageBusy, Resolution, Row, State
from ..lease import LEASE_MAX_MS
from ..rules import Applied, Linkage, Recorded, answer_to, is_in_future, recorded_ending
from .wakeups import Place


@dataclass(frozen=True, slots=True)
class Decided:
    """A grant that the rules have decided, and the last changes of what decided it."""

    was_in_doubt: bool
    row_change: int
    applied_change: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What `alipayhk_claim` returns: the token of a grant, or what decides the answer."""

    granted: int | None
    row: Recorded | None
    linkage: Linkage
    row_change: int
    applied_change: int
    lock: int
    now_ms: int

    @classmethod
    def of(cls, found: Mapping[str, Any], claim: Claim, now_ms: int) -> Facts:
        """Read the columns; remaining times become times by the gateway's clock, which says `now_ms`."""
        row, newest = None, None
        if found["state"] is not None:
            row = Recorded(
                found["fingerprint"], State(found["state"]), _ending(found), now_ms + found["lease_left_ms"]
            )
        if found["applied_change"] is not None:
            same = [claim.fingerprint] if found["applied_same"] else []
            newest = Applied(found["applied_biz_time_ms"], same)
        busy_until_ms = 0 if found["busy_left_ms"] is None else now_ms + found["busy_left_ms"]
        return cls(
            granted=found["granted"],
            row=row,
            linkage=Linkage(newest, busy_until_ms),
            row_change=found["change"] or 0,
            applied_change=found["applied_change"] or 0,
            lock=found["lock"],
            now_ms=now_ms,
        )

    def answer(self, claim: Claim) -> Answer:
        """Return the answer by the rules; a grant has no token."""
        return answer_to(claim, self.row, self.linkage, self.now_ms, token=0)

    def placed(self, answer: Answer, count: int) -> Answer:
        """Return an answer with what its call waits for."""
        if isinstance(answer, (InProgress, LinkageBusy)):
            return replace(answer, place=Place(str(self.lock), count))
        return answer

    def decided(self, *, was_in_doubt: bool) -> Decided:
        """Return the decision to grant the claim because of these facts."""
        return Decided(was_in_doubt, self.row_change, self.applied_change)


def key_parameters(key: Key) -> tuple[str, str, str]:
    """Return the parameters of a key."""
    return key.request_id, key.api, key.client_id


def claim_parameters(
    claim: Claim,
    now_ms: int,
    *,
    writes: bool,
    claim_id: bytes,
    key_id: str,
    wait_ms: int,
    decided: Decided | None,
    holder: bytes,
) -> Sequence[object]:
    """Return the parameters of CLAIM."""
    content = (claim.caller, key_id, claim.fingerprint, claim.linkage, claim.biz_time_ms)
    times = (claim.lease_ms, LEASE_MAX_MS, wait_ms, now_ms)
    grant = (claim_id, not is_in_future(claim), decided is not None)
    seen = (decided.was_in_doubt, decided.row_change, decided.applied_change) if decided else (False, 0, 0)
    return (writes, *key_parameters(claim.key), *content, *times, *grant, *seen, holder)


def row_of(found: Mapping[str, Any], now_ms: int) -> Row:
    """Return a row; its lease expires by the clock of `now_ms`."""
    resolved = None if found["who"] is None else Resolution(found["who"], found["why"], found["at_ms"])
    return Row(
        key=Key(found["client_id"], found["api"], found["request_id"]),
        caller=found["caller"],
        fingerprint=found["fingerprint"],
        linkage=found["linkage"],
        biz_time_ms=found["biz_time_ms"],
        state=State(found["state"]),
        attempts=found["attempts"],
        token=found["token"],
        lease_until_ms=now_ms + found["lease_left_ms"],
        created_ms=found["created_ms"],
        updated_ms=found["updated_ms"],
        ending=_ending(found, is_resolved=resolved is not None),
        was_in_doubt=found["was_in_doubt"],
        resolved=resolved,
        change=found["change"],
    )


def _ending(found: Mapping[str, Any], *, is_resolved: bool | None = None) -> Ending | None:
    if found["result_status"] is None:
        return None
    return recorded_ending(
        State(found["state"]),
        found["result_status"],
        found["result_code"],
        found["sealed"],
        was_in_doubt=found["was_in_doubt"],
        is_resolved=found["is_resolved"] if is_resolved is None else is_resolved,
    )
