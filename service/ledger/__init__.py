"""The ledger: which requests were sent, and what came of them.

This module is the port: what a request looks like to the ledger, and what it answers; `rules` has the rules
that every level shares. A claim is one atomic operation: it says what is known of a request
or, in the same commit, that it is about to be sent. What each level promises:

    off        nothing is remembered
    memory:    everything, until the process ends
    sqlite:    everything, on one host, through kill -9 and power loss

A row holds no personal data: identities and content are keyed hashes, and what a replay needs is sealed.
Times are milliseconds since 1970, and the clock is the caller's. That clock may be set: a lease that ends
later than any lease can is shortened, in the ledger, by the first claim or resolution that reads it; and a
row's time of update never goes back, so that `drop` does not take a new outcome for an old one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class LedgerFault(ValueError):
    """The ledger cannot be opened as it is configured. The text is a sentence for the operator."""


class LedgerUnavailable(Exception):
    """The ledger cannot be used now; nothing was promised. The text is for the log.

    What was to be written may stand nevertheless, where a disk failed in mid-commit: `record`, `renew`
    and `undo` may be repeated, and a claim of which nobody was told ends in doubt.
    """


class State(StrEnum):
    """Where a request stands."""

    SENDING = "sending"
    APPLIED = "applied"
    REJECTED = "rejected"
    IN_DOUBT = "in_doubt"
    GATEWAY_REJECTED = "refused"
    """AlipayHK refused this gateway, not the request: the same content may be sent again under its id."""


FINAL = frozenset({State.APPLIED, State.REJECTED})


@dataclass(frozen=True, slots=True)
class Key:
    """What a request id is unique in: AlipayHK deduplicates per client id and API."""

    client_id: str
    api: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that wants to be sent."""

    key: Key
    caller: str
    """Recorded, and not part of the key."""
    fingerprint: bytes = field(repr=False)
    """A keyed hash of the business content without its request id."""
    linkage: bytes | None = field(default=None, repr=False)
    """A keyed hash of what it changes; None for an API that keeps no order."""
    biz_time_ms: int | None = None
    """Its place in the order of that linkage."""
    biz_time_max_ms: int | None = None
    """Beyond it a biz_time is in the future."""
    may_repeat: bool = False
    """Whether a request in doubt may be sent again."""
    lease_ms: int = 5_000
    """How long an attempt may take before others may take over."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of a request, as far as it may stand in a row."""

    state: State
    result_status: str = ""
    result_code: str = ""
    sealed: bytes = field(default=b"", repr=False)
    """What a replay needs, sealed by the caller."""
    resolved_by_operator: bool = False


@dataclass(frozen=True, slots=True)
class Resolution:
    """Who ended a doubt, and why. It outlives its row."""

    who: str
    why: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Row:
    """A request as the ledger has it."""

    key: Key
    caller: str
    fingerprint: bytes = field(repr=False)
    linkage: bytes | None = field(repr=False)
    biz_time_ms: int | None
    state: State
    attempts: int
    token: int
    """The fencing token: grows with every claim that the ledger grants; older holders can write no more."""
    lease_until_ms: int
    created_ms: int
    updated_ms: int
    ending: Ending | None = None
    """What last came of it; while it is being sent again, still what came of it before."""
    was_in_doubt: bool = False
    """Whether an attempt before the present one may have taken effect."""
    resolved: Resolution | None = None

    def is_in_doubt(self, now_ms: int) -> bool:
        """Whether it was sent and nobody knows what came of it: recorded so, or its lease ran out."""
        if self.state is State.SENDING:
            return self.lease_until_ms <= now_ms
        return self.state is State.IN_DOUBT


# What a claim is answered.


@dataclass(frozen=True, slots=True)
class Granted:
    """It is yours to send; the row says so already."""

    token: int
    was_in_doubt: bool


@dataclass(frozen=True, slots=True)
class Known:
    """It is final: replay this."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class InProgress:
    """The same request is under way elsewhere, at the latest until then."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class LinkageBusy:
    """Another request for its linkage is under way, at the latest until then."""

    until_ms: int
    was_in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class Reused:
    """Its id was used before with other content; nothing is sent."""

    state: State
    """The state of the earlier request; SENDING also where its lease is over."""


class ClaimRejected(StrEnum):
    """It must not be sent, and will not be."""

    IN_DOUBT = "in_doubt"
    IN_FUTURE = "in_future"
    STALE = "stale"
    TIE = "tie"


Answer = Granted | Known | InProgress | LinkageBusy | Reused | ClaimRejected


class Ledger(Protocol):
    """What every level can do. Every method may raise LedgerUnavailable."""

    @property
    def outlives_crash(self) -> bool:
        """Whether what it does not know was never sent, as far as it was asked before sending."""

    async def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Say what is known of a request, or write that it is about to be sent; in one commit."""

    async def look(self, claim: Claim, now_ms: int) -> Answer:
        """Answer as `claim` would, and write nothing; Granted then only says that it would be."""

    async def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Write that another attempt is about to be sent after one that was; False if taken over.

        Taken over means: by another claim, by a person's decision, or, once the lease was over, by
        another request for the linkage.
        """

    async def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Take more time for the present attempt, of which no byte has left yet; False as above."""

    async def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Write what came of it; False if another claim or a person has taken over.

        It does not depend on the lease, and repeating it is harmless.
        """

    async def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Take the present attempt back, of which nothing left: the row is as it was before it.

        That is no row, or a row in doubt, or refused, as an earlier attempt left it. False as for `record`.
        """

    async def find(self, request_id: str) -> Sequence[Row]:
        """Return what is known of a request id, for every client id and API."""

    async def resolve(self, key: Key, ending: Ending, *, who: str, why: str, now_ms: int) -> bool:
        """Write what a person decided about a request in doubt; False if it is not in doubt."""

    def rows(self, *, since_ms: int = 0, in_doubt_at_ms: int | None = None) -> AsyncIterator[Row]:
        """Go through the rows updated since a time, oldest first, or those in doubt at a time."""

    async def drop(self, *, before_ms: int, now_ms: int) -> int:
        """Forget finals last updated before a time; return how many. Rows in doubt stay.

        A row's own time is not enough, because the clock may have been behind when it was written. So a
        mark is kept of the last fencing token at `now_ms`, about once an hour. A row is dropped only if a
        mark older than `before_ms` has its token. Call it only while the clock is known to be right.
        """

    async def close(self) -> None:
        """Finish what is being written."""
