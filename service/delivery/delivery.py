"""Deliver each request to AlipayHK once: the life of a flight, and what its callers get.

Theory of operation
-------------------
**Lifecycle.** The first call with a request id starts a flight: a task of its own, tracked in `_flights`
until it is done. Calls with the same id and content join it; other content is REQUEST_ID_REUSED. The
flight's deadline is the latest deadline of its calls. It reads the ledger first if it would have to wait,
because a finished request is answered without waiting. Then it queues for its linkage, and `Sender` claims
and sends it. `state` names its states, what is durable in each, and what a crash leaves there.

**What is durable when.** Before the first byte is sent, the ledger has committed the claim (row `sending`).
A call gets AlipayHK's final answer when its flight has recorded it, or at its deadline if that is earlier.
If the ledger cannot record it, the call gets it anyway, and `PendingWrites` keeps it.

**Cancellation rule.** A flight is cancelled only while no byte of it has been sent, and only when its last
call leaves or reaches its deadline. Its call gets `not_sent` only after the cancelled task is done, or was
cancelled without having made an attempt: nothing is sent after `not_sent`. Once the first byte is sent, the
attempt always runs to completion or timeout and its outcome is recorded, even if every caller disconnects.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from google.protobuf.message import Message

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.client import Client
from clients.alipayhk.wire.errors import CallError

from ..credentials.in_use import InUse
from ..ledger import Key, State
from ..outcomes.call import Call
from ..outcomes.circumstances import Circumstances
from ..outcomes.refusal import Refusal
from ..outcomes.result_codes import ResultCodes
from ..telemetry.logs import log, stack_of
from ..telemetry.metrics import Metrics
from ..waiting import Deadlines, wait_for_end
from .clock_skew import ClockSkew
from .flight import Flight
from .ledger_session import LedgerSession
from .ledger_wait import Busy
from .linkage_queue import LinkageQueue
from .outbound_request import OutboundRequest
from .pace import Pace
from .sender import LEFT_MIN_S, Sender
from .state import FlightState

CANCEL_SHARE: Final = 0.6
"""The share of `Call.margin_s` that a call waits for its cancelled flight to undo the claim."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one process sends."""

    max_in_flight: int
    """Flights at a time, and concurrent attempts at each API."""
    attempts_max: int
    """Attempts at one request, the first one included."""
    workers: int = 1
    """Processes that share the retry budget and the failures that open the circuit breaker."""


class Delivery:
    """Delivers requests, and tracks those in flight."""

    def __init__(
        self,
        client: Client,
        session: LedgerSession,
        metrics: Metrics,
        *,
        apis: Iterable[str],
        codes: InUse[ResultCodes],
        limits: Limits,
        skew: ClockSkew | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._session = session
        self._max_in_flight = limits.max_in_flight
        self._flights: dict[Key, Flight] = {}
        self._by_caller: Counter[str] = Counter()
        self._linkages = LinkageQueue()
        self._deadlines = Deadlines()
        skew = skew or ClockSkew(metrics)
        self._senders = {
            api: Sender(
                client,
                session,
                Pace(
                    api,
                    limit_max=limits.max_in_flight,
                    workers=limits.workers,
                    skew=skew,
                    chance=chance,
                ),
                metrics,
                codes,
                attempts_max=limits.attempts_max,
                give_way=self._give_way,
            )
            for api in apis
        }
        self._closing = False

    @property
    def in_progress(self) -> int:
        """The number of requests that are not finished."""
        return len(self._flights)

    @property
    def breakers_open(self) -> Mapping[str, bool]:
        """Whether the calls of each API are rejected, except for a probe."""
        return {api: sender.pace.is_open for api, sender in self._senders.items()}

    async def deliver(self, request: OutboundRequest, call: Call) -> Message:
        """Return the response to a request, or raise Refusal or CallError, by the call's deadline."""
        flight = self._flights.get(request.key)
        if flight is not None and (flight.cancelled or flight.refused):
            # It must undo its claim first. Its end says nothing about this call: it may be due to the
            # deadline of another one.
            await wait_for_end(flight.task, call.left_s)
            flight = self._flights.get(request.key)
        if flight is None:
            self._admit(call)
        elif flight.request.content != request.content:
            raise request.reused(State.SENDING)
        # From here on the request may be sent: an unhandled exception must not be reported as `not_sent`.
        before = call.circumstances
        call.circumstances = Circumstances(before.api, before.idempotent, sent=True, retried=before.retried)
        flight = flight or self._begin(request, call)
        flight.join(call)
        try:
            return await self._wait(flight, call)
        finally:
            flight.leave(call)
            if not flight.deadlines and not flight.sent:
                flight.cancel()

    def close(self) -> None:
        """Refuse new requests, and let those in flight make no more attempts."""
        self._closing = True
        for sender in self._senders.values():
            sender.close()

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no request is in flight; return whether that happened in time."""
        tasks = [flight.task for flight in self._flights.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        return not self._flights

    async def _wait(self, flight: Flight, call: Call) -> Message:
        """Wait for a flight until the call's deadline; return the response or raise the failure."""
        end = self._deadlines.future(call.deadline)
        flight.ends.append(end)
        await end
        if not flight.task.done() and not flight.sent and len(flight.deadlines) == 1:
            flight.cancel()
            await wait_for_end(flight.task, call.margin_s * CANCEL_SHARE)
        if flight.task.done() and not flight.task.cancelled():
            return flight.task.result()
        if flight.answer is not None:
            return flight.answer
        if flight.sent or flight.task.cancelled() or (flight.cancelled and not flight.attempts):
            # A cancelled flight without an attempt makes none, even if it still waits for the ledger.
            raise flight.failure_now(self._session.progress)
        # It may still be sent, for other calls or before the cancellation takes effect: not `not_sent`.
        raise Refusal(reasons.ERROR_REASON_REQUEST_IN_PROGRESS)

    def _admit(self, call: Call) -> None:
        if self._closing:
            raise Refusal(reasons.ERROR_REASON_SHUTTING_DOWN)
        if call.left_s < LEFT_MIN_S:
            raise Refusal(reasons.ERROR_REASON_DEADLINE_TOO_SHORT)
        quota = call.caller.max_in_flight
        if quota is not None and self._by_caller[call.caller.name] >= quota:
            raise Refusal(reasons.ERROR_REASON_CALLER_QUOTA_EXCEEDED)
        if len(self._flights) >= self._max_in_flight:
            raise Refusal(reasons.ERROR_REASON_OVERLOADED)

    def _begin(self, request: OutboundRequest, call: Call) -> Flight:
        flight = Flight(request, call.caller.name, call.span)
        self._by_caller[flight.caller] += 1
        flight.task = asyncio.get_running_loop().create_task(self._fly(flight))
        self._flights[request.key] = flight
        flight.task.add_done_callback(partial(self._ended, flight))
        return flight

    def _ended(self, flight: Flight, task: asyncio.Task[Message]) -> None:
        del self._flights[flight.request.key]
        self._session.leave(flight)
        self._by_caller[flight.caller] -= 1
        for end in flight.ends:
            if not end.done():
                end.set_result(None)
        error = None if task.cancelled() else task.exception()
        if not task.cancelled() and (error is None or isinstance(error, (Refusal, CallError))):
            flight.enter(FlightState.FINISHED)
            return
        if error is None or flight.deadlines:
            return
        # A call that waits reports and logs the exception. Without one, it is logged here.
        log.error(
            "unhandled exception in delivery task", error_class=type(error).__name__, stack=stack_of(error)
        )

    async def _fly(self, flight: Flight) -> Message:
        request, sender = flight.request, self._senders[flight.request.endpoint.api]
        waits = self._linkages.is_taken(request.linkage)
        if waits or sender.pace.is_blocked:
            # Finished requests are answered from the ledger without queueing for the linkage, for capacity,
            # or for the circuit breaker.
            known = await self._session.look(flight)
            if known is not None and not isinstance(known, Busy):
                return known
        if waits:
            await self._session.queue(flight)
        blocked_by = reasons.ERROR_REASON_LINKAGE_BUSY if waits else None
        flight.enter(FlightState.QUEUED_FOR_LINKAGE, blocked_by=blocked_by)
        if not self._linkages.take(request.linkage):
            await self._linkages.wait(request.linkage, request.biz_time_ms or 0)
        flight.has_turn = True
        try:
            return await sender.run(flight)
        finally:
            if flight.has_turn:
                self._linkages.leave(request.linkage)

    async def _give_way(self, flight: Flight) -> None:
        """Let an older request for the linkage, which came later, go first: others wait for it, too."""
        linkage, biz_time_ms = flight.request.linkage, flight.request.biz_time_ms or 0
        if self._linkages.has_older(linkage, biz_time_ms):
            flight.has_turn = False
            await self._linkages.wait(linkage, biz_time_ms, gives_way=True)
            flight.has_turn = True
