"""Whether and how fast one API of AlipayHK may be called: breaker, limit, retry budget and clock skew."""

from __future__ import annotations

import time
from collections.abc import Callable

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.errors import CallError, ResultError

from ..outcomes.refusal import Refusal, skew_fact
from .clock_skew import STOPPED_APIS, ClockSkew
from .flight import Flight
from .pacing import Breaker, Limiter, RetryBudget, backoff_s, is_failing


class Pace:
    """Decides when the next attempt at one API may start, from how the earlier ones ended."""

    def __init__(
        self, api: str, *, limit_max: int, workers: int, skew: ClockSkew, chance: Callable[[], float]
    ) -> None:
        self._api = api
        self._skew = skew
        self._is_stopped_by_skew = api in STOPPED_APIS
        self._chance = chance
        self.breaker = Breaker(workers)
        self.limiter = Limiter(limit_max)
        self.budget = RetryBudget(workers)

    @property
    def is_open(self) -> bool:
        """Whether every call but a probe is rejected."""
        return self.breaker.is_open or (self._is_stopped_by_skew and self._skew.stops(self._api))

    @property
    def is_blocked(self) -> bool:
        """Whether a new attempt would be rejected, or would have to wait."""
        return self.is_open or self.limiter.is_full

    def check(self) -> None:
        """Raise Refusal if no attempt may start now; unlike `admit`, do not make this one the probe."""
        if self._is_stopped_by_skew and self._skew.would_reject(self._api):
            raise self._clocks_differ()
        if self.breaker.is_open and self.breaker.would_reject(time.monotonic()):
            raise Refusal(reasons.ERROR_REASON_CIRCUIT_OPEN)

    def admit(self) -> bool:
        """Admit one attempt or raise Refusal; return whether it is the breaker's probe.

        The probe must be released at the end, in case nothing was sent.
        """
        probes = self.breaker.is_open
        if probes and not self.breaker.allow(time.monotonic()):
            raise Refusal(reasons.ERROR_REASON_CIRCUIT_OPEN)
        if self._is_stopped_by_skew and not self._skew.allow(self._api):
            if probes:
                self.breaker.release_probe()
            raise self._clocks_differ()
        return probes

    def succeeded(self, attempt: Attempt) -> None:
        """Update everything with an attempt that AlipayHK answered with S."""
        self._learn_skew(attempt, None)
        self.breaker.succeeded()
        self.limiter.on_success()

    def failed(self, flight: Flight, attempt: Attempt, error: CallError, *, limited: bool) -> None:
        """Update everything with a failed attempt; `limited` if AlipayHK says that it is called too often.

        A request counts at most one failure towards the breaker.
        """
        now_s = time.monotonic()
        self._learn_skew(attempt, error)
        verified = isinstance(error, ResultError)
        if verified:
            self.breaker.succeeded()
        elif is_failing(error) and not any(is_failing(earlier.error) for earlier in flight.failures):
            self.breaker.failed(now_s)
        if limited or isinstance(error, errors.Timeout):
            self.limiter.on_overload(now_s)
        elif verified:
            self.limiter.on_success()

    def backoff_s(self, attempts: int) -> float:
        """Return the wait in seconds before the attempt after so many attempts."""
        return backoff_s(attempts, self._chance)

    def _learn_skew(self, attempt: Attempt, error: CallError | None) -> None:
        if attempt.skew_s is not None:
            self._skew.heard(attempt.skew_s, in_window=not isinstance(error, errors.OutsideWindow))

    def _clocks_differ(self) -> Refusal:
        facts = skew_fact(self._skew.skew_s or 0.0)
        return Refusal(reasons.ERROR_REASON_CIRCUIT_OPEN, cause="the clocks differ", facts=facts)
