"""The ledger records which requests were sent to AlipayHK, and their outcomes.

This module is the port. `levels` lists what implements it, `rules` has the rules that all levels share.

Theory of operation
-------------------
The calls for one request in their order, and what holds after each:

1. `look` answers from what is recorded and writes nothing. A final request is replayed from it.
2. `claim` answers in the same way or, in the same commit, writes that the request is about to be sent.
   After Granted the row is SENDING with a lease and a fencing token. Until the lease expires, no process
   gets a grant for this id or for another id of the linkage. Nothing is sent before Granted.
3. `extend` gives an attempt more time if it waited before its first byte. The attempt and its token stay.
4. The attempt is sent while the lease holds by both clocks (see `lease`). If no byte was sent, `undo`
   restores the row as it was before the attempt: absent, IN_DOUBT or GATEWAY_REJECTED.
5. `record` writes the outcome; it is called before any caller gets the outcome. APPLIED and REJECTED are
   final: they are replayed, and nothing is sent again. IN_DOUBT may still become final. After
   GATEWAY_REJECTED the same content may be sent again under its id.
6. `renew` writes that the same holder is about to send another attempt after one that may have taken
   effect: the row is SENDING with a new lease, one more attempt and `was_in_doubt`. Steps 3 to 6 repeat.
   Another claim, an operator or, with an expired lease, another request for the linkage overtakes it.
7. `resolve` writes an operator's decision about a request in doubt. The row gets a new token, so that an
   old holder cannot write any more.
8. `drop` deletes old rows that are neither SENDING nor IN_DOUBT. Their ids are new again.

A crash before the commit of `claim` leaves no row, and nothing was sent. A crash between `claim` and
`record` leaves SENDING, which is in doubt once its lease has expired. A crash later leaves the outcome.

A row contains no personal data: identities and content are keyed hashes, and what a replay needs is sealed.
Times are milliseconds since 1970 by the wall clock, which may be set back; `Row.change` has the order.
`now_ms` is when an operation was asked for; leases are judged inside its transaction, too (`rules.Times`).
An impossibly long lease is cut by the first claim that reads it. No outcome lowers `updated_ms`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from .answers import Answer as Answer
from .answers import ClaimRejected as ClaimRejected
from .answers import Granted as Granted
from .answers import InProgress as InProgress
from .answers import Known as Known
from .answers import LinkageBusy as LinkageBusy
from .answers import Reused as Reused
from .errors import LedgerFault as LedgerFault
from .errors import LedgerUnavailable as LedgerUnavailable


class State(StrEnum):
    """The state of a request."""

    SENDING = "sending"
    APPLIED = "applied"
    REJECTED = "rejected"
    IN_DOUBT = "in_doubt"
    GATEWAY_REJECTED = "refused"
    """AlipayHK rejected the gateway, not the request: the same content may be sent again under its id."""


FINAL = frozenset({State.APPLIED, State.REJECTED})


class Key(NamedTuple):
    """A request id with the scope of its uniqueness: AlipayHK deduplicates per client id and API."""

    client_id: str
    api: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that its holder wants to send."""

    key: Key
    caller: str
    """Recorded, and not part of the key."""
    fingerprint: bytes = field(repr=False)
    """A keyed hash of the business content without its request id."""
    linkage: bytes | None = field(default=None, repr=False)
    """A keyed hash of the linkage that the request changes; None for an API without order."""
    biz_time_ms: int | None = None
    """The position in the order of that linkage."""
    biz_time_max_ms: int | None = None
    """A later biz_time is in the future."""
    may_repeat: bool = False
    """Whether a request in doubt may be sent again."""
    lease_ms: int = field(kw_only=True)
    """Maximum duration of an attempt, after which others can take over."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The outcome of a request, as a row records it."""

    state: State
    result_status: str = ""
    result_code: str = ""
    sealed: bytes = field(default=b"", repr=False)
    """The data that a replay needs, sealed by the caller."""
    resolved_by_operator: bool = False
    may_be_late: bool = field(default=False, compare=False)
    """Whether a power loss soon after it may undo it and leave the row in doubt; kill -9 does not."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """An operator's decision about a request in doubt. It is kept after its row is dropped."""

    who: str
    why: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Row:
    """A request as the ledger records it."""

    key: Key
    caller: str
    fingerprint: bytes = field(repr=False)
    linkage: bytes | None = field(repr=False)
    biz_time_ms: int | None
    state: State
    attempts: int
    token: int
    """The fencing token: it grows with every grant, and holders of older tokens cannot write."""
    lease_until_ms: int
    created_ms: int
    updated_ms: int
    ending: Ending | None = None
    """The last recorded outcome; in SENDING, that of an earlier attempt."""
    was_in_doubt: bool = False
    """Whether an earlier attempt may have taken effect."""
    resolved: Resolution | None = None
    change: int = field(default=0, compare=False)
    """Its last change in the order of all changes; those committed together may have the same number."""

    def is_in_doubt(self, now_ms: int) -> bool:
        """Whether the outcome is unknown: recorded so, or SENDING with an expired lease."""
        if self.state is State.SENDING:
            return self.lease_until_ms <= now_ms
        return self.state is State.IN_DOUBT


class InDoubt(NamedTuple):
    """The requests of one API that are in doubt."""

    api: str
    requests: int
    oldest_ms: int
    """When the first of them was claimed first."""


class Ledger(Protocol):
    """The operations of every level. Each of them may raise LedgerUnavailable."""

    @property
    def outlives_process(self) -> bool:
        """Whether a later process finds what was recorded, also after kill -9."""

    @property
    def log_bytes(self) -> int:
        """The size of a write-ahead log that readers of the file can keep from shrinking; else 0."""

    async def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Answer from what is recorded, or write that the request is about to be sent, in one commit."""

    async def look(self, claim: Claim, now_ms: int) -> Answer:
        """Answer as `claim` would and write nothing; Granted has no valid token then."""

    async def queue(self, claim: Claim) -> None:
        """Keep a place for a request that waits for its linkage in its process; see `LinkageBusy`."""

    def leave(self, key: Key) -> None:
        """Give up the place of a request that ends without a grant."""

    async def wait(self, answer: InProgress | LinkageBusy, timeout_s: float) -> None:
        """Wait until the answer may be another one now, at most for so many seconds."""

    async def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Write that the holder is about to send another attempt; return False if it was overtaken."""

    async def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Lengthen the lease of an attempt before its first byte; return False as `renew` does."""

    async def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Write the outcome, whatever the lease; return False if another holder or an operator overtook."""

    async def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Restore the row as it was before an attempt that sent nothing; return False as `record` does."""

    async def find(self, request_id: str) -> Sequence[Row]:
        """Return the rows with a request id, for every client id and API."""

    async def resolve(self, key: Key, ending: Ending, *, who: str, why: str, now_ms: int) -> bool:
        """Write an operator's decision about a request in doubt; return False if it is not in doubt."""

    def rows(
        self, *, since_ms: int = 0, after: int = 0, in_doubt_at_ms: int | None = None
    ) -> AsyncIterator[Row]:
        """Yield rows, the oldest change first: those in doubt at a time, or those changed after a change.

        `since_ms` selects the first row updated since then, and all rows changed after it by any clock.
        """

    async def in_doubt(self, now_ms: int) -> Sequence[InDoubt]:
        """Count the requests in doubt by their API, in bounded time: see `rules.COUNTED_MAX`."""

    async def drop(self, *, before_ms: int, now_ms: int) -> int:
        """Delete rows last updated before a time; return how many. Rows that are SENDING or IN_DOUBT stay.

        A clock may have been behind: about once an hour the ledger marks its last token, and a row stays
        until a mark older than `before_ms` has its token or a later one. The clock must be right now.
        """

    async def close(self) -> Sequence[Key]:
        """Complete the pending writes; return the requests whose claims may be left, although not sent."""
