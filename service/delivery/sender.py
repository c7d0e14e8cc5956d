"""The attempts at one API of AlipayHK: when to send, when to send again, and when to stop.

`run` takes a flight from QUEUED_FOR_LINKAGE to RECORDING (see `state`). Each failed attempt is judged once,
when it ends; the decision about a resend, the ledger and the callers all start from that verdict.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from google.protobuf.message import Message

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.client import Client
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.errors import CallError, ResultError, Unsigned

from ..credentials.in_use import InUse
from ..outcomes.refusal import Refusal
from ..outcomes.result_codes import ResultCodes
from ..outcomes.table import Outcome, Retry
from ..outcomes.verdict import Failure, Verdict, judged
from ..telemetry.metrics import Metrics
from .attempt_log import logged_attempt
from .flight import Flight
from .ledger_session import LedgerSession
from .ledger_wait import Busy
from .pace import Pace
from .state import FlightState

LEFT_MIN_S: Final = 0.1
"""No attempt starts with less time than this left, in seconds."""
RESEND_LEFT_S: Final = 0.25
"""The least time in seconds that the wait before a resend leaves for its response."""


def _never() -> bool:
    return False


class Sender:
    """Makes the attempts of every flight to one API."""

    def __init__(
        self,
        client: Client,
        session: LedgerSession,
        pace: Pace,
        metrics: Metrics,
        codes: InUse[ResultCodes],
        *,
        attempts_max: int,
        give_way: Callable[[Flight], Awaitable[None]],
    ) -> None:
        self.pace = pace
        self._client = client
        self._session = session
        self._metrics = metrics
        self._codes = codes
        self._attempts_max = attempts_max
        self._give_way = give_way
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Start no more attempts; those in progress run to their end."""
        self._closing.set()

    async def run(self, flight: Flight) -> Message:
        """Claim and send the request, again if that may help; return the response or raise its failure."""
        self.pace.check()
        try:
            result = await self._first(flight)
            while isinstance(result, Failure):
                result = await self._again(flight, result)
            return result
        except CallError:
            raise
        except BaseException:
            # Also when cancelled: a claimed request must not be left as one that may have been sent.
            flight.refused = True
            await asyncio.shield(self._abandon(flight))
            raise

    async def _first(self, flight: Flight) -> Message | Failure:
        """Wait for capacity, claim the request and make its first attempt; or answer it from the ledger."""
        pace = self.pace
        while True:
            flight.enter(FlightState.QUEUED_FOR_CAPACITY)
            if not pace.limiter.take():
                await pace.limiter.wait()
            probes = False
            try:
                self._check_open()
                if flight.left_s < LEFT_MIN_S:
                    raise Refusal(flight.blocked_by or reasons.ERROR_REASON_DEADLINE_TOO_SHORT)
                # The breaker may have opened while the flight was queued.
                probes = pace.admit()
                flight.enter(FlightState.CLAIMING)
                answer = await self._session.claim(flight)
                if answer is None:
                    self._check_open()
                    pace.budget.earn()
                    return await self._attempt(flight)
            finally:
                if probes:
                    pace.breaker.release_probe()
                pace.limiter.release()
            if not isinstance(answer, Busy):
                return answer
            await self._session.wait(answer)
            await self._give_way(flight)

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise Refusal(reasons.ERROR_REASON_SHUTTING_DOWN)

    async def _sleep(self, wait_s: float) -> None:
        """Wait, but not after `close`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._closing.wait()

    async def _again(self, flight: Flight, failure: Failure) -> Message | Failure:
        """Make another attempt if that may help and there is time; else record and raise the failure."""
        verdict = failure.verdict.in_view_of(flight.circumstances)
        wait_s = self._wait_s(flight, failure.error, verdict)
        if wait_s is None:
            await self._record(flight, failure.error, verdict)
            raise failure.error
        flight.enter(FlightState.BACKING_OFF)
        await self._session.hold(flight, wait_s)
        await self._sleep(wait_s)
        if not self.pace.limiter.take():
            await self.pace.limiter.wait()
        try:
            hopeless = self._closing.is_set() or self.pace.is_open or flight.left_s < LEFT_MIN_S
            if hopeless or not await self._session.renew(flight):
                await self._record(flight, failure.error, verdict)
                raise failure.error
            return await self._attempt(flight)
        finally:
            self.pace.limiter.release()

    async def _attempt(self, flight: Flight) -> Message | Failure:
        """Make one attempt; return the recorded response, or the failure that the flight has now."""
        request = flight.request
        failure = flight.failure
        attempt = Attempt(
            fresh_connection=failure is not None and isinstance(failure.error, errors.Repeated),
            may_send=lambda: not flight.cancelled and self._session.may_send(flight),
        )
        flight.attempts.append(attempt)
        flight.enter(FlightState.CONNECTING)
        try:
            verified = await logged_attempt(self._client, self._metrics, flight, attempt)
        except CallError as error:
            failure = Failure(error, judged(error, flight.circumstances, self._codes.current))
            limited = failure.verdict.reason == reasons.ERROR_REASON_WALLET_RATE_LIMITED
            self.pace.failed(flight, attempt, error, limited=limited)
            flight.fail(failure)
            return flight.failure or failure
        finally:
            # It sends nothing more. Without a reference to its flight both are freed at once, without the
            # garbage collector.
            attempt.may_send = _never
        self.pace.succeeded(attempt)
        response = flight.answer = request.reply(verified)
        flight.enter(FlightState.RECORDING)
        await self._session.applied(flight, response)
        return response

    def _wait_s(self, flight: Flight, error: CallError, verdict: Verdict) -> float | None:
        """Return the wait in seconds before the next attempt; None if no attempt is to follow."""
        flight.resends_ended = len(flight.attempts) >= self._attempts_max
        limited = verdict.reason == reasons.ERROR_REASON_WALLET_RATE_LIMITED
        hopeless = self._closing.is_set() or limited or self.pace.is_open
        # If another process has taken the request over, a later call finds its result in the ledger.
        hopeless |= isinstance(error, errors.LeaseExpired)
        if hopeless or flight.resends_ended or verdict.retry is not Retry.SAME_REQUEST_ID:
            return None
        asked_s = error.retry_after_s if isinstance(error, Unsigned) else 0.0
        wait_max_s = flight.left_s - RESEND_LEFT_S
        if wait_max_s < asked_s:
            return None
        if not self.pace.budget.spend(time.monotonic()):
            flight.resends_ended = True
            return None
        return max(min(self.pace.backoff_s(len(flight.attempts)), wait_max_s), asked_s)

    async def _record(self, flight: Flight, error: CallError, verdict: Verdict) -> None:
        """Record the result of a flight that failed."""
        flight.enter(FlightState.RECORDING)
        final = verdict.reason == reasons.ERROR_REASON_WALLET_REJECTED
        if isinstance(error, ResultError) and final and verdict.outcome is Outcome.REJECTED:
            await self._session.rejected(flight, error)
        elif flight.sent and verdict.outcome is Outcome.UNKNOWN:
            await self._session.in_doubt(flight)
        elif isinstance(error, ResultError):
            # AlipayHK rejected this gateway's configuration. The same content may be sent again under the
            # same id once that is corrected.
            await self._session.refused(flight, error)
        else:
            await self._session.undo(flight)

    async def _abandon(self, flight: Flight) -> None:
        """Correct the row of a flight that was cancelled, refused or ended by an unhandled exception."""
        if flight.held:
            await (self._session.in_doubt(flight) if flight.sent else self._session.undo(flight))
