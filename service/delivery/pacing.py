"""How fast AlipayHK is called: a breaker, an adaptive limit, a retry budget, backoff. No I/O.

Time comes from the caller, in seconds on the monotonic clock, and so does chance.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

from clients.alipayhk.wire import errors
from clients.alipayhk.wire.errors import CallError, Unsigned

BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 2.0
DOUBLINGS_MAX: Final = 10
"""Far beyond the cap, and far from where a float ends."""
FAILING_CALLS: Final = 20
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
"""What says that AlipayHK is ill, whatever the request was."""


def is_failing(error: CallError | None) -> bool:
    """Whether a failure says that AlipayHK is ill, and not that a request is."""
    if isinstance(error, Unsigned):
        return error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, FAILING)


def backoff_s(retry: int, chance: Callable[[], float]) -> float:
    """Say how long to wait before the n-th retry (from 1): capped exponential, with full jitter."""
    doublings = min(retry - 1, DOUBLINGS_MAX)
    return chance() * min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0**doublings)


class RetryBudget:
    """Retries are at most a share of first attempts, and a few a second beside that."""

    def __init__(self) -> None:
        self._earned = 0.0
        self._floor = RETRIES_A_SECOND
        self._at: float | None = None

    def earn(self) -> None:
        """Note a first attempt."""
        self._earned = min(self._earned + RETRY_SHARE, RETRIES_A_SECOND)

    def spend(self, now_s: float) -> bool:
        """Take one retry, if there is one."""
        passed_s = now_s - self._at if self._at is not None else 0.0
        self._floor = min(self._floor + passed_s * RETRIES_A_SECOND, RETRIES_A_SECOND)
        self._at = now_s
        if self._earned >= 1:
            self._earned -= 1
        elif self._floor >= 1:
            self._floor -= 1
        else:
            return False
        return True


class Breaker:
    """Stops calling when call after call says that AlipayHK is ill; one probe at a time finds it well.

    It opens when ILL_CALLS within ILL_WINDOW_S were ill and none was well. A verified answer says that it
    is well, whatever it says of its request.
    """

    def __init__(self) -> None:
        self._failures: deque[float] = deque(maxlen=FAILING_CALLS)
        self._open_until_s: float | None = None
        self._probing = False

    def allow(self, now_s: float) -> bool:
        """Whether an attempt may begin; the first one after a while of silence is the probe."""
        if self.would_reject(now_s):
            return False
        self._probing = self.is_open
        return True

    def would_reject(self, now_s: float) -> bool:
        """Whether an attempt may not begin now; unlike `admits` it makes no probe of who asks."""
        return self._open_until_s is not None and (now_s < self._open_until_s or self._probing)

    @property
    def is_open(self) -> bool:
        """Whether calls are being refused, but for a probe."""
        return self._open_until_s is not None

    def note(self, *, failing: bool, now_s: float) -> None:
        """Note how a call ended."""
        if not failing:
            self._failures.clear()
            self._open_until_s = None
            self._probing = False
            return
        self._failures.append(now_s)
        crowded = len(self._failures) == FAILING_CALLS and now_s - self._failures[0] <= FAILING_WINDOW_S
        if self.is_open or crowded:
            self._open_until_s = now_s + OPEN_S

    def release_probe(self) -> None:
        """Note that the probe has ended, whatever it told."""
        self._probing = False


class Limiter:
    """How many attempts may be under way: fewer when AlipayHK is slow or says so, more while it is well."""

    def __init__(self, limit_max: int) -> None:
        self._limit_max = limit_max
        self._limit = float(limit_max)
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._overloaded_at = float("-inf")

    @property
    def limit(self) -> int:
        """How many attempts may be under way now."""
        return int(self._limit)

    @property
    def is_full(self) -> bool:
        """Whether one more attempt would have to wait."""
        return self._taken >= self.limit or bool(self._waiting)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait, first come first served, for room for one attempt."""
        if self.is_full:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._waiting = deque(waiting for waiting in self._waiting if waiting is not turn)
                if turn.done() and not turn.cancelled():
                    self._release()
                raise
        else:
            self._taken += 1
        try:
            yield
        finally:
            self._release()

    def on_success(self) -> None:
        """Note an attempt that was answered: a little more may be tried."""
        self._limit = min(self._limit_max, self._limit + 1 / self._limit)

    def on_overload(self, now_s: float) -> None:
        """Note that AlipayHK is slow, or says that it is called too often; once a second counts."""
        if now_s - self._overloaded_at >= OVERLOAD_EVERY_S:
            self._overloaded_at = now_s
            self._limit = max(min(LIMIT_MIN, self._limit_max), self._limit * OVERLOAD_FACTOR)

    def _release(self) -> None:
        self._taken -= 1
        while self._waiting and self._taken < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
