"""The attempts at one API of AlipayHK: when to try, when to try again, and when to stop trying."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from google.protobuf.message import Message

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.client import Client
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.errors import CallError, ResultError, Unsigned

from ..outcomes.refusal import Refusal, skew_fact
from ..outcomes.result_codes import ResultCodes
from ..outcomes.table import Outcome, Retry, Verdict, verdict_of
from ..telemetry.metrics import Metrics
from .attempt_log import logged_attempt
from .clock_skew import ClockSkew
from .flight import Flight
from .ledger_session import Busy, LedgerSession
from .pacing import Breaker, Limiter, RetryBudget, backoff_s, is_failing

LEFT_MIN_S: Final = 0.1
"""With less time than this left, nothing more is sent."""
RESEND_LEFT_S: Final = 0.25
"""The least time in seconds that a re-send leaves for its answer; a longer wait is cut to leave it."""


class Sender:
    """Makes the attempts of every flight to one API."""

    def __init__(  # noqa: PLR0913  (one argument for each part)
        self,
        api: str,
        client: Client,
        session: LedgerSession,
        metrics: Metrics,
        codes: ResultCodes,
        *,
        limit_max: int,
        attempts_max: int,
        chance: Callable[[], float],
        skew: ClockSkew,
    ) -> None:
        self._api = api
        self._client = client
        self._session = session
        self._metrics = metrics
        self._codes = codes
        self._attempts_max = attempts_max
        self._chance = chance
        self._breaker = Breaker()
        self._limiter = Limiter(limit_max)
        self._budget = RetryBudget()
        self._skew = skew
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Begin nothing more: what is under way is the last attempt of its flight."""
        self._closing.set()

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, but for a probe."""
        return self._breaker.is_open or self._skew.stops(self._api)

    @property
    def is_full(self) -> bool:
        """Whether an attempt would have to wait for room."""
        return self._limiter.is_full

    async def run(self, flight: Flight, *, waited: bool) -> Message:
        """Claim, send, and send again while that may help; return the response, or raise the failure.

        One that waited its turn is told so, where its time is over before there is something else to tell.
        """
        if self._skew.would_reject(self._api):
            raise self._clocks_differ()
        if self._breaker.would_reject(time.monotonic()):
            raise Refusal(reasons.ERROR_REASON_CIRCUIT_OPEN)
        try:
            ended = await self._first(flight, waited=waited)
            while isinstance(ended, CallError):
                ended = await self._again(flight, ended)
            return ended
        except CallError:
            raise
        except BaseException:
            # Also a cancel: what was claimed must not be left to look as if it might have been sent.
            await asyncio.shield(self._abandon(flight))
            raise

    async def _first(self, flight: Flight, *, waited: bool) -> Message | CallError:
        """Wait for room, claim the request and make its first attempt; or answer from the ledger."""
        while True:
            if not waited:
                flight.stuck = Refusal(reasons.ERROR_REASON_OVERLOADED)
            async with self._limiter.slot():
                self._must_be_open()
                if flight.left_s < LEFT_MIN_S:
                    raise flight.stuck if waited else Refusal(reasons.ERROR_REASON_DEADLINE_TOO_SHORT)
                if not waited:
                    flight.stuck = self._session.progress.wait()
                with self._admitted():
                    answer = await self._session.claim(flight)
                    if answer is None:
                        self._must_be_open()
                        self._budget.earn()
                        return await self._attempt(flight)
            if not isinstance(answer, Busy):
                return answer
            flight.stuck, waited = answer.refusal, True
            await self._sleep(answer.wait_s)

    def _must_be_open(self) -> None:
        if self._closing.is_set():
            raise Refusal(reasons.ERROR_REASON_SHUTTING_DOWN)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """Ask the breaker, which may have opened since; a probe that only waits for others is none."""
        probes = self._breaker.is_open
        if not self._breaker.allow(time.monotonic()):
            raise Refusal(reasons.ERROR_REASON_CIRCUIT_OPEN)
        if not self._skew.allow(self._api):
            raise self._clocks_differ()
        try:
            yield
        finally:
            if probes:
                self._breaker.release_probe()

    def _clocks_differ(self) -> Refusal:
        facts = skew_fact(self._skew.skew_s or 0.0)
        return Refusal(reasons.ERROR_REASON_CIRCUIT_OPEN, cause="the clocks differ", facts=facts)

    async def _sleep(self, wait_s: float) -> None:
        """Wait, but not when nothing more is to be begun."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._closing.wait()

    async def _again(self, flight: Flight, failure: CallError) -> Message | CallError:
        """Make another attempt if that may help and there is time; else record the end and raise it."""
        verdict = self._verdict(flight, failure)
        wait_s = self._wait_s(flight, failure, verdict)
        if wait_s is None:
            await self._record(flight, failure, verdict)
            raise failure
        flight.stuck = failure
        await self._session.hold(flight, wait_s)
        await self._sleep(wait_s)
        async with self._limiter.slot():
            hopeless = self._closing.is_set() or self._breaker.is_open or flight.left_s < LEFT_MIN_S
            if hopeless or not await self._session.renew(flight):
                await self._record(flight, failure, verdict)
                raise failure
            ended = await self._attempt(flight)
        # What goes wrong here after an attempt that was sent does not replace what came of that one.
        return failure if failure.sent and isinstance(ended, errors.NotSent) else ended

    async def _attempt(self, flight: Flight) -> Message | CallError:
        """Make one attempt; return the response, recorded, or how the attempt failed."""
        request = flight.request
        attempt = Attempt(
            fresh_connection=isinstance(flight.last_sent, errors.Repeated),
            may_send=lambda: self._session.may_send(flight),
        )
        flight.attempts.append(attempt)
        flight.stuck = errors.Unreachable("the caller's time was up")
        try:
            verified = await logged_attempt(self._client, self._metrics, flight, attempt)
        except CallError as error:
            self._note(flight, error)
            return error
        self._note(flight, None)
        response = flight.answer = request.reply(verified)
        await self._session.applied(flight, response)
        return response

    def _note(self, flight: Flight, error: CallError | None) -> None:
        """Let the pace follow from how an attempt ended; each flight speaks once for AlipayHK's illness."""
        now_s = time.monotonic()
        verified = error is None or isinstance(error, ResultError)
        if (skew_s := flight.attempts[-1].skew_s) is not None:
            self._skew.heard(skew_s, in_window=not isinstance(error, errors.OutsideWindow))
        if verified:
            self._breaker.note(failing=False, now_s=now_s)
        elif is_failing(error) and not flight.counted_failure:
            flight.counted_failure = True
            self._breaker.note(failing=True, now_s=now_s)
        if error is None:
            self._limiter.on_success()
            return
        verdict = self._verdict(flight, error)
        if isinstance(error, errors.Timeout) or verdict.reason == reasons.ERROR_REASON_WALLET_RATE_LIMITED:
            self._limiter.on_overload(now_s)
        elif verified:
            self._limiter.on_success()
        if error.sent:
            flight.last_sent = error
            flight.in_doubt |= verdict.outcome is Outcome.UNKNOWN

    def _wait_s(self, flight: Flight, failure: CallError, verdict: Verdict) -> float | None:
        """Return the wait in seconds before another attempt; None if there is to be none."""
        flight.resends_ended |= len(flight.attempts) >= self._attempts_max
        limited = verdict.reason == reasons.ERROR_REASON_WALLET_RATE_LIMITED
        hopeless = self._closing.is_set() or limited or self._breaker.is_open
        hopeless |= isinstance(failure, errors.LeaseExpired)  # a later call finds out who has it now
        if hopeless or flight.resends_ended or verdict.retry is not Retry.SAME_REQUEST_ID:
            return None
        asked_s = failure.retry_after_s if isinstance(failure, Unsigned) else 0.0
        wait_max_s = flight.left_s - RESEND_LEFT_S
        if wait_max_s < asked_s:
            return None
        if not self._budget.spend(time.monotonic()):
            flight.resends_ended = True
            return None
        return max(min(backoff_s(len(flight.attempts), self._chance), wait_max_s), asked_s)

    async def _record(self, flight: Flight, failure: CallError, verdict: Verdict) -> None:
        """Record how a flight ended that did not succeed."""
        final = verdict.reason == reasons.ERROR_REASON_WALLET_REJECTED
        if isinstance(failure, ResultError) and final and verdict.outcome is Outcome.REJECTED:
            flight.answer = failure
            await self._session.rejected(flight, failure)
        elif flight.sent and verdict.outcome is Outcome.UNKNOWN:
            await self._session.in_doubt(flight)
        elif isinstance(failure, ResultError):
            # AlipayHK refused this gateway: once that is mended, the id may come back with its content.
            await self._session.refused(flight, failure)
        else:
            await self._session.undo(flight)

    async def _abandon(self, flight: Flight) -> None:
        """Leave the ledger right behind a flight that was cancelled, or met a bug."""
        if flight.token:
            await (self._session.in_doubt(flight) if flight.sent else self._session.undo(flight))

    def _verdict(self, flight: Flight, error: CallError) -> Verdict:
        return verdict_of(error, flight.circumstances, self._codes)
