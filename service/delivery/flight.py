"""One request on its way, for all who wait for it: what was sent so far, and what that means now."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace

from google.protobuf.message import Message

from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire.errors import CallError, Timeout

from ..ledger import Claim
from ..ledger.lease import Lease
from ..outcomes.call import Call, Circumstances
from .outbound_request import OutboundRequest


@dataclass(slots=True, eq=False)
class Flight:
    """Begun by one call, joined by others with the same id and content."""

    request: OutboundRequest
    fingerprint: bytes
    linkage: bytes | None
    """A keyed hash of what it changes; None for an API that keeps no order."""
    caller: str
    stuck: Exception
    """What it would fail with if it had to end now, before anything was sent."""
    task: asyncio.Task[Message] = field(init=False)
    deadlines: dict[int, float] = field(default_factory=dict)
    """When those who wait for it must be answered, by the identity of their calls."""
    attempts: list[Attempt] = field(default_factory=list)
    under_way: Attempt | None = None
    """The attempt that AlipayHK has not answered yet."""
    in_doubt: bool = False
    """Whether an attempt at this id, here or elsewhere, may have taken effect and was not answered."""
    last_sent: CallError | None = None
    """How the last attempt ended of which a byte may have left."""
    answer: Message | CallError | None = None
    """What AlipayHK said for good, known before it is recorded."""
    replayed: bool = False
    cancelled: bool = False
    token: int = 0
    """The ledger's token; 0 until it was claimed."""
    lease: Lease | None = None
    """When others may take it over; None until it was claimed."""
    looked_up: bool = False
    """Whether a ledger that outlives a crash said what it knows of the request."""
    retried: bool = False
    """Whether a call that waited for it hides attempts of its client; see ADR 0010."""
    resends_ended: bool = False
    """Whether ATTEMPTS_MAX or the retry budget ended its re-sends."""
    counted_failure: bool = False
    """Whether it has told the breaker that AlipayHK is ill."""

    @property
    def sent(self) -> bool:
        """Whether a byte of any attempt may have left."""
        return any(attempt.sent for attempt in self.attempts)

    @property
    def left_s(self) -> float:
        """How much time is left: that of the most patient one who waits; none when nobody does."""
        return max(self.deadlines.values(), default=0.0) - time.monotonic()

    @property
    def circumstances(self) -> Circumstances:
        """What its failures depend on."""
        endpoint = self.request.endpoint
        return Circumstances(
            api=endpoint.api,
            idempotent=endpoint.idempotent,
            attempts=len(self.attempts),
            sent=self.sent,
            in_doubt=self.in_doubt,
            replayed=self.replayed,
            looked_up=self.looked_up,
            retried=self.retried,
            resends_ended=self.resends_ended,
        )

    def claim(self, *, lease_ms: int, biz_time_max_ms: int) -> Claim:
        """Say what the ledger is asked."""
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
        """Let a call wait for it."""
        self.deadlines[id(call)] = call.deadline
        self.retried |= call.circumstances.retried

    def leave(self, call: Call) -> None:
        """Let a call wait no more, and tell it what is known."""
        self.deadlines.pop(id(call), None)
        # What is told of a flight depends on it alone, but for what the call brought along.
        call.circumstances = replace(self.circumstances, retried=call.circumstances.retried)

    def failure_now(self) -> Exception:
        """Say what an unfinished flight is to the caller whose time is up.

        The reason is that of the last attempt that was sent; what went wrong here since never replaces it.
        """
        if self.under_way is not None and self.under_way.sent:
            return Timeout("the caller's time was up")
        if self.last_sent is None and self.sent:
            return Timeout("the attempt was cancelled when it had begun to send")
        return self.last_sent or self.stuck

    def cancel(self) -> None:
        """Cancel it, once: a second cancel would interrupt what the first one has to tidy up."""
        if not self.cancelled:
            self.cancelled = True
            self.task.cancel()
