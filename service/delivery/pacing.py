"""Circuit breaker, adaptive concurrency limit, retry budget and backoff, without I/O.

Time, in seconds on the monotonic clock, and random numbers are arguments.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from clients.alipayhk.wire import errors
from clients.alipayhk.wire.errors import CallError, Unsigned

BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 2.0
DOUBLINGS_MAX: Final = 10
"""Enough to reach the cap, and too few to overflow a float."""
FAILING_CALLS: Final = 20
FAILING_CALLS_MIN: Final = 4
"""The least number of failures that opens a breaker, however many workers share FAILING_CALLS."""
FAILING_WINDOW_S: Final = 10.0
OPEN_S: Final = 5.0
RETRY_SHARE: Final = 0.2
RETRIES_A_SECOND: Final = 10.0
LIMIT_MIN: Final = 4
OVERLOAD_FACTOR: Final = 0.7
OVERLOAD_EVERY_S: Final = 1.0
FAILING: Final = (
    errors.Unreachable,
    errors.TlsInvalid,
    errors.Timeout,
    errors.ConnectionLost,
    errors.OutsideWindow,
)
"""The failures that count as failures of AlipayHK, whatever the request was."""


def is_failing(error: CallError | None) -> bool:
    """Return whether AlipayHK is failing, as opposed to rejecting one request."""
    if isinstance(error, Unsigned):
        return error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, FAILING)


def backoff_s(retry: int, chance: Callable[[], float]) -> float:
    """Return the wait in seconds before the n-th retry (from 1): capped exponential with full jitter.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    doublings = min(retry - 1, DOUBLINGS_MAX)
    return chance() * min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0**doublings)


class RetryBudget:
    """Limits retries to a share of the first attempts, plus a few per second, which the workers share."""

    def __init__(self, workers: int = 1) -> None:
        self._a_second = RETRIES_A_SECOND / workers
        self._saved_max = max(self._a_second, 1.0)
        self._earned = 0.0
        self._floor = self._saved_max
        self._at = 0.0

    def earn(self) -> None:
        """Count a first attempt."""
        self._earned = min(self._earned + RETRY_SHARE, self._saved_max)

    def spend(self, now_s: float) -> bool:
        """Take one retry from the budget; return whether there was one."""
        self._floor = min(self._floor + (now_s - self._at) * self._a_second, self._saved_max)
        self._at = now_s
        if self._earned >= 1:
            self._earned -= 1
        elif self._floor >= 1:
            self._floor -= 1
        else:
            return False
        return True


class Breaker:
    """Circuit breaker: rejects calls while AlipayHK is failing, except for one probe at a time.

    It opens after FAILING_CALLS failures within FAILING_WINDOW_S without a verified response between them.
    A verified response closes it, whatever its result. OPEN_S after the last failure one probe is allowed.
    Each worker has a breaker of its own, which sees only its share of the failures.
    """

    def __init__(self, workers: int = 1) -> None:
        self._failing_calls = max(math.ceil(FAILING_CALLS / workers), FAILING_CALLS_MIN)
        self._failures: deque[float] = deque(maxlen=self._failing_calls)
        self.is_open = False
        """Whether calls are rejected, except for a probe."""
        self._open_until_s = 0.0
        self._probing = False

    def allow(self, now_s: float) -> bool:
        """Return whether an attempt may start; while the breaker is open, the one that may is the probe."""
        if self.would_reject(now_s):
            return False
        self._probing = self.is_open
        return True

    def would_reject(self, now_s: float) -> bool:
        """Return whether an attempt must not start now; unlike `allow`, start no probe."""
        return self.is_open and (now_s < self._open_until_s or self._probing)

    def succeeded(self) -> None:
        """Note a verified response."""
        self._failures.clear()
        self.is_open = self._probing = False

    def failed(self, now_s: float) -> None:
        """Note a failure of AlipayHK."""
        self._failures.append(now_s)
        crowded = (
            len(self._failures) == self._failing_calls and now_s - self._failures[0] <= FAILING_WINDOW_S
        )
        if self.is_open or crowded:
            self.is_open, self._open_until_s = True, now_s + OPEN_S

    def release_probe(self) -> None:
        """Note that the probe has ended, with any result."""
        self._probing = False


class Limiter:
    """Limits concurrent attempts: lower when AlipayHK is slow or overloaded, higher after each response."""

    def __init__(self, limit_max: int) -> None:
        self._limit_max = limit_max
        self._limit = float(limit_max)
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._overloaded_at = float("-inf")

    @property
    def limit(self) -> int:
        """How many attempts may be in flight now."""
        return int(self._limit)

    @property
    def is_full(self) -> bool:
        """Whether one more attempt would have to wait."""
        return self._taken >= int(self._limit) or bool(self._waiting)

    def take(self) -> bool:
        """Take capacity for one attempt, which `release` returns; return False if it must wait."""
        if self.is_full:
            return False
        self._taken += 1
        return True

    async def wait(self) -> None:
        """Wait in order of arrival for capacity for one attempt, and take it."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting = deque(waiting for waiting in self._waiting if waiting is not turn)
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Return the capacity of one attempt, and give what is free to those that wait."""
        self._taken -= 1
        while self._waiting and self._taken < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)

    def on_success(self) -> None:
        """Note a verified response: raise the limit a little."""
        self._limit = min(self._limit_max, self._limit + 1 / self._limit)

    def on_overload(self, now_s: float) -> None:
        """Note a timeout or a rate limit of AlipayHK: lower the limit, at most once in OVERLOAD_EVERY_S."""
        if now_s - self._overloaded_at >= OVERLOAD_EVERY_S:
            self._overloaded_at = now_s
            self._limit = max(min(LIMIT_MIN, self._limit_max), self._limit * OVERLOAD_FACTOR)
