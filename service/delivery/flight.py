"""One request in flight, shared by all calls that wait for it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire.errors import Timeout, Unreachable

from ..ledger import Claim
from ..ledger.lease import Lease
from ..outcomes.call import Call
from ..outcomes.circumstances import Circumstances
from ..outcomes.refusal import Refusal
from ..outcomes.table import Outcome
from ..outcomes.verdict import Failure
from ..telemetry.logs import log
from .ledger_wait import LedgerProgress
from .outbound_request import OutboundRequest
from .state import REASON_AT_DEADLINE, TRANSITIONS, FlightState

if TYPE_CHECKING:
    from ..telemetry.spans import CallSpan

LEDGER_STATES = frozenset({FlightState.LOOKING_UP, FlightState.CLAIMING})


@dataclass(frozen=True, slots=True)
class Held:
    """The claim that the ledger granted: while it holds, only this process may send the request."""

    token: int
    """The fencing token."""
    lease: Lease


@dataclass(slots=True, eq=False)
class Flight:
    """Started by one call, joined by others with the same id and content."""

    request: OutboundRequest
    caller: str
    """The name of the caller whose call started it."""
    span: CallSpan | None = None
    """The span of that call, if traces are exported: the parent of the spans of the attempts."""

    # Written by Delivery.
    task: asyncio.Task[Message] = field(init=False)
    deadlines: dict[int, float] = field(default_factory=dict)
    """The deadlines of the calls that wait for it, on the monotonic clock, by the identity of the call."""
    ends: list[asyncio.Future[None]] = field(default_factory=list)
    """What the calls wait for: done when it has ended, or at the call's deadline."""
    retried: bool = False
    """Whether a call that waited for it may hide attempts of its client; see ADR 0010."""
    cancelled: bool = False
    has_turn: bool = False
    """Whether it is first in the queue of its linkage."""

    # Written by LedgerSession.
    fingerprint: bytes = b""
    """A keyed hash of the content; empty until it is needed for a ledger that records."""
    linkage: bytes | None = None
    """A keyed hash of the linkage, made together with `fingerprint`; None for an API without order."""
    held: Held | None = None
    """None until it was claimed, and where the ledger was bypassed."""
    looked_up: bool = False
    """Whether a ledger that outlives its process was read for this request."""
    has_place: bool = False
    """Whether the ledger keeps its place among the requests of all gateways that wait for its linkage."""
    replayed: bool = False
    in_doubt: bool = False
    """Whether another attempt at this id may have taken effect. `fail` sets it, and a lost claim."""

    # Written by Sender.
    attempts: list[Attempt] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    """How the attempts that failed did so, in order; one more attempt may be in progress."""
    answer: Message | None = None
    """AlipayHK's response to a success, known before it is recorded."""
    resends_ended: bool = False
    """Whether ATTEMPTS_MAX or the retry budget ended its resends."""
    refused: bool = False
    """Whether it ends without an attempt's result, and its claim is being undone."""

    entered: FlightState = FlightState.LOOKING_UP
    """The state that it was moved to; `state` is the one to read."""
    since_s: float = field(init=False)
    """When it entered its last state of LEDGER_STATES, on the monotonic clock."""
    blocked_by: reasons.ErrorReason | None = None
    """Why it had to wait for another request; a caller whose deadline expires gets it as its reason."""

    def __post_init__(self) -> None:
        """Start the time of the first state."""
        self.since_s = time.monotonic()

    @property
    def state(self) -> FlightState:
        """The state; the transport turns CONNECTING into AWAITING_ANSWER when it sets `Attempt.sent`."""
        if self.entered is FlightState.CONNECTING and self.attempts and self.attempts[-1].sent:
            return FlightState.AWAITING_ANSWER
        return self.entered

    def enter(self, state: FlightState, *, blocked_by: reasons.ErrorReason | None = None) -> None:
        """Move to a state; keep the earlier `blocked_by` if none is given.

        An illegal transition is a bug in this package. It is logged, and the flight continues: raising here
        could lose a result that is about to be recorded, and the state decides nothing about that.
        """
        before = self.entered
        if before is FlightState.CONNECTING:
            before = self.state
        if (before, state) not in TRANSITIONS:
            where = f"{before} -> {state}"
            log.error("illegal state transition", request_id=self.request.request_id, where=where)
        self.entered = state
        if state in LEDGER_STATES:
            self.since_s = time.monotonic()
        if blocked_by is not None:
            self.blocked_by = blocked_by

    @property
    def sent(self) -> bool:
        """Whether the first byte of any attempt may have been sent."""
        return any([attempt.sent for attempt in self.attempts])  # noqa: C419  (a generator costs twice as much)

    @property
    def left_s(self) -> float:
        """The time until the latest deadline of the calls that wait for it; negative when none waits."""
        return max(self.deadlines.values(), default=0.0) - time.monotonic()

    @property
    def failure(self) -> Failure | None:
        """The failure of the last attempt that was sent; if none was, of the last attempt.

        A local failure after an attempt that was sent never replaces that attempt's failure.
        """
        if not self.failures:
            return None
        sent = [failure for failure in self.failures if failure.error.sent]
        return (sent or self.failures)[-1]

    @property
    def circumstances(self) -> Circumstances:
        """The facts that the verdict on its failures depends on."""
        return self._circumstances(retried=self.retried)

    def _circumstances(self, *, retried: bool) -> Circumstances:
        endpoint = self.request.endpoint
        return Circumstances(
            api=endpoint.api,
            idempotent=endpoint.idempotent,
            attempts=len(self.attempts),
            sent=self.sent,
            in_doubt=self.in_doubt,
            replayed=self.replayed,
            looked_up=self.looked_up,
            retried=retried,
            resends_ended=self.resends_ended,
        )

    def claim(self, *, lease_ms: int, biz_time_max_ms: int) -> Claim:
        """Return the claim that the ledger decides on."""
        return Claim(
            key=self.request.key,
            caller=self.caller,
            fingerprint=self.fingerprint,
            linkage=self.linkage,
            biz_time_ms=self.request.biz_time_ms,
            biz_time_max_ms=biz_time_max_ms,
            may_repeat=self.request.endpoint.idempotent,
            lease_ms=lease_ms,
        )

    def join(self, call: Call) -> None:
        """Add a call that waits for it."""
        self.deadlines[id(call)] = call.deadline
        self.retried |= call.circumstances.retried
        if call.span is not None and self.span is not None and call.span is not self.span:
            call.span.share(self.span)

    def leave(self, call: Call) -> None:
        """Remove a call that waits for it, and give the call what its verdict depends on."""
        del self.deadlines[id(call)]
        call.failure = self.failure
        # `retried` is the call's own: another call that waited may have been a retry.
        call.circumstances = self._circumstances(retried=call.circumstances.retried)

    def fail(self, failure: Failure) -> None:
        """Add how the present attempt failed."""
        outcome = failure.verdict.in_view_of(self.circumstances).outcome
        self.in_doubt |= failure.error.sent and outcome is Outcome.UNKNOWN
        self.failures.append(failure)

    def failure_now(self, ledger: LedgerProgress) -> Exception:
        """Return what a caller gets whose deadline expires now, before the flight has a result."""
        if not self.attempts:
            ledger_reason = ledger.reason_since(self.since_s) if self.state in LEDGER_STATES else None
            return Refusal(self.blocked_by or ledger_reason or REASON_AT_DEADLINE[self.state])
        failure = self.failure
        if self.state is FlightState.AWAITING_ANSWER:
            return Timeout("cancelled after the first byte" if self.cancelled else "the deadline expired")
        ended = self.state is FlightState.BACKING_OFF or (
            self.state is FlightState.RECORDING and not self.sent
        )
        if failure is not None and (failure.error.sent or ended):
            return failure.error
        # The attempt is connecting, or failed although it began to send, or met an unhandled exception.
        return Timeout("no result") if self.sent else Unreachable("the deadline expired")

    def cancel(self) -> None:
        """Cancel it once: a second cancel would interrupt the cleanup after the first.

        While the ledger decides on its claim, it waits for the answer (`LedgerSession.claim`).
        """
        if not self.cancelled:
            self.cancelled = True
            if self.entered is not FlightState.CLAIMING:
                self.task.cancel()

    def end_if_cancelled(self) -> None:
        """Raise CancelledError if it was cancelled while the ledger decided on its claim.

        It is not interrupted then: the claim may be committed, and must be undone, or its result is known.
        """
        if self.cancelled:
            raise asyncio.CancelledError
