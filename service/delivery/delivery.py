"""Getting a request to AlipayHK once: single flight, order, re-sends, and the ledger around them.

A flight is a detached, tracked task. Callers wait for it within their own deadlines; their cancel never
abandons half a send: an attempt that has begun to send is given its whole time, and is recorded. A flight
whose last waiter has gone before a byte left is cancelled first, and only then may anybody be told
`not_sent`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.message import Message

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.client import Client
from clients.alipayhk.wire.errors import CallError

from ..ledger import Key, State
from ..outcomes.call import Call
from ..outcomes.refusal import Refusal
from ..outcomes.result_codes import ResultCodes
from ..telemetry.logs import log, stack_of
from ..telemetry.metrics import Metrics
from .clock_skew import ClockSkew
from .flight import Flight
from .ledger_session import Busy, LedgerSession
from .linkage_queue import LinkageQueue
from .outbound_request import OutboundRequest
from .pace import Pace
from .sender import LEFT_MIN_S, Sender
from .state import FlightState

CANCEL_SHARE: Final = 0.6
"""How much of the margin before its caller's deadline a cancelled flight may take to tidy up the ledger."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one process sends."""

    max_in_flight: int
    """Flights at a time, and concurrent attempts at each API."""
    attempts_max: int
    """Attempts at one request, the first one included."""


class Delivery:
    """Delivers orders, and knows which are under way."""

    def __init__(
        self,
        client: Client,
        session: LedgerSession,
        metrics: Metrics,
        *,
        apis: Iterable[str],
        codes: ResultCodes,
        limits: Limits,
        skew: ClockSkew | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._session = session
        self._max_in_flight = limits.max_in_flight
        self._flights: dict[Key, Flight] = {}
        self._by_caller: Counter[str] = Counter()
        self._linkages = LinkageQueue()
        skew = skew or ClockSkew(metrics)
        self._senders = {
            api: Sender(
                client,
                session,
                Pace(api, limit_max=limits.max_in_flight, skew=skew, chance=chance),
                metrics,
                codes,
                attempts_max=limits.attempts_max,
            )
            for api in apis
        }
        self._closing = False

    async def deliver(self, request: OutboundRequest, call: Call) -> Message:
        """Deliver one order; return the response, or raise Refusal or CallError in the caller's time."""
        fingerprint = self._session.fingerprint(request)
        await self._cancelled(request.key, call)
        flight = self._flights.get(request.key)
        if flight is None:
            self._admit(call)
        elif flight.fingerprint != fingerprint:
            raise request.reused(State.SENDING)
        # It may be sent from here on, until its flight says otherwise: no bug may be told as `not_sent`.
        call.circumstances = replace(call.circumstances, sent=True)
        flight = flight or self._begin(request, fingerprint, call)
        flight.join(call)
        try:
            return await self._wait(flight, call)
        finally:
            flight.leave(call)
            if not flight.deadlines and not flight.sent:
                flight.cancel()

    def close(self) -> None:
        """Refuse what comes from now on, and let what is under way make no more attempts."""
        self._closing = True
        for sender in self._senders.values():
            sender.close()

    async def idle(self, timeout_s: float) -> bool:
        """Wait until nothing is under way; return whether that came true in time."""
        tasks = [flight.task for flight in self._flights.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        return not self._flights

    async def _wait(self, flight: Flight, call: Call) -> Message:
        """Wait for a flight until the caller must be answered."""
        await asyncio.wait({flight.task}, timeout=max(call.left_s, 0.0))
        if not flight.task.done() and not flight.sent and len(flight.deadlines) == 1:
            flight.cancel()
            await asyncio.wait({flight.task}, timeout=call.margin_s * CANCEL_SHARE)
        if flight.task.done() and not flight.task.cancelled():
            return flight.task.result()
        if isinstance(flight.answer, Message):
            return flight.answer
        if flight.answer is not None:
            raise flight.answer
        if flight.sent or flight.task.cancelled() or (flight.cancelled and not flight.attempts):
            # A cancelled flight that has made no attempt makes none, though the ledger keeps it up.
            raise flight.failure_now(self._session.progress)
        # It may be sent yet, for others who wait or before its cancel is through: not `not_sent`.
        raise Refusal(reasons.ERROR_REASON_REQUEST_IN_PROGRESS)

    async def _cancelled(self, key: Key, call: Call) -> None:
        """Wait until a flight that is being cancelled has left the ledger as it was."""
        flight = self._flights.get(key)
        if flight is not None and flight.cancelled:
            await asyncio.wait({flight.task}, timeout=max(call.left_s, 0.0))

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

    def _begin(self, request: OutboundRequest, fingerprint: bytes, call: Call) -> Flight:
        flight = Flight(request, fingerprint, self._session.linkage(request), call.caller.name)
        flight.join(call)
        flight.task = asyncio.create_task(self._fly(flight))
        self._flights[request.key] = flight
        self._by_caller[flight.caller] += 1
        flight.task.add_done_callback(lambda task: self._ended(flight, task))
        return flight

    def _ended(self, flight: Flight, task: asyncio.Task[Message]) -> None:
        del self._flights[flight.request.key]
        self._by_caller[flight.caller] -= 1
        error = None if task.cancelled() else task.exception()
        if not task.cancelled() and (error is None or isinstance(error, (Refusal, CallError))):
            flight.enter(FlightState.FINISHED)
            return
        if error is None or flight.deadlines:
            return
        # Whoever waits is told, and that is logged; a bug that nobody waits for must not go unseen.
        log.error("a flight met a bug", error_class=type(error).__name__, stack=stack_of(error))

    async def _fly(self, flight: Flight) -> Message:
        request, sender = flight.request, self._senders[flight.request.endpoint.api]
        waits = self._linkages.is_taken(flight.linkage)
        if waits or sender.pace.is_open or sender.pace.limiter.is_full:
            # What is known already need not wait: its turn, for room, nor for AlipayHK to be well.
            known = await self._session.look(flight)
            if known is not None and not isinstance(known, Busy):
                return known
        blocked_by = reasons.ERROR_REASON_LINKAGE_BUSY if waits else None
        flight.enter(FlightState.QUEUED_FOR_LINKAGE, blocked_by=blocked_by)
        async with self._linkages.take(flight.linkage, request.biz_time_ms):
            return await sender.run(flight)
