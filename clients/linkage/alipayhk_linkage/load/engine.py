"""The engine of one generator process: it starts calls when they are due, and records their results.

Times are seconds from the start of the run, on the monotonic clock. The intended times are fixed before the
run. An event loop that wakes late starts the overdue calls immediately and keeps their intended times.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Final, Protocol

import grpc
import grpc.aio

from ..errors import LinkageError
from .plan import RUN_OUT_S, Plan
from .recording import CallResult, Recording, ReportedOutcome
from .requests import Request, Requests

HEARTBEAT_S: Final = 0.01
"""How often the lag of the event loop is measured."""
BATCH_MAX: Final = 32
"""How many overdue arrivals are started before the event loop processes responses again."""
INTERRUPTED_GRACE_S: Final = 1.0
"""How long an interrupted run waits for the calls in flight."""
POLL_S: Final = 0.1
"""How often the wait for the last calls checks for an interruption."""


Call = grpc.aio.UnaryUnaryCall[bytes, bytes]


class Rpcs(Protocol):
    """The RPCs of the gateways."""

    def start(self, request: Request, timeout: float) -> Call:
        """Start a call with a timeout in seconds."""
        ...


class Engine:
    """Makes one process's share of the calls."""

    def __init__(
        self, plan: Plan, process: int, rpcs: Rpcs, recording: Recording, waited: Callable[[], float]
    ) -> None:
        self._plan = plan
        self._process = process
        self._rpcs = rpcs
        self._recording = recording
        self._waited = waited
        self._requests = Requests(plan.mix, plan.run, seed=plan.seed, process=process)
        self._max_in_flight = plan.share(plan.max_in_flight, process)
        self._in_flight = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._interrupted = False
        self._started_at = 0.0
        self._marked = (0.0, 0.0)

    @property
    def in_flight(self) -> int:
        """The number of calls in flight."""
        return self._in_flight

    def now(self) -> float:
        """Return the time since the start of the run."""
        return time.monotonic() - self._started_at

    def interrupt(self) -> None:
        """Stop starting calls."""
        self._interrupted = True
        self._recording.stopped_at = min(self._recording.stopped_at, self.now())
        self._over.set()

    async def run(self, started_at: float, times: Iterator[float] | None) -> None:
        """Make the calls, from `started_at` on the monotonic clock, at the intended times.

        If `times` is None, make them in a closed loop.
        """
        self._started_at = started_at
        self._recording.stopped_at = self._plan.total_duration
        await asyncio.sleep(-self.now())
        self._marked = (self.now(), self._waited())
        heartbeat = asyncio.ensure_future(self._heartbeat())
        if times is None:
            self._start_closed_loop()
        else:
            _Arrivals(times, self._arrive, started_at, self._over).start_due()
        await self._over.wait()
        self._mark()
        await self._wait_for_calls()
        heartbeat.cancel()

    def _arrive(self, intended: float) -> None:
        accepted = self._in_flight < self._max_in_flight
        self._recording.arrival(intended, self.now(), self._in_flight + 1, accepted=accepted)
        if accepted:
            request = self._requests.next()
            call, sent = self._start(request)
            self._keep(self._finish(call, request, intended, sent))

    def _keep(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _start(self, request: Request) -> tuple[Call, float]:
        sent = self.now()
        call = self._rpcs.start(request, request.timeout or self._plan.deadline)
        self._in_flight += 1
        if request.cancel_after is not None:
            asyncio.get_running_loop().call_later(request.cancel_after, call.cancel)
        return call, sent

    async def _finish(self, call: Call, request: Request, intended: float, sent: float) -> None:
        code, reason, outcome = "OK", "", "applied"
        try:
            if await call is None:  # a status OK without a message
                code, outcome = "INTERNAL", "unknown"
        except grpc.aio.AioRpcError as error:
            read = LinkageError.of(error)
            code, reason, outcome = read.code.name, read.reason, read.outcome.value
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                self._recording.unfinished_call(intended)
                if self._interrupted:
                    self._remember(request, "CANCELLED", "unknown")
                raise
            code, outcome = "CANCELLED", "unknown"
        now = self.now()
        self._in_flight -= 1
        result = CallResult(request.rpc, request.variant, code, reason, outcome)
        self._recording.result(result, intended, sent, now)
        self._remember(request, code, outcome)

    def _remember(self, request: Request, code: str, outcome: str) -> None:
        if self._recording.remember:
            reported = ReportedOutcome(request.rpc, request.request_id, request.variant, code, outcome)
            self._recording.reported.append(reported)

    def _start_closed_loop(self) -> None:
        callers = self._plan.share(self._plan.callers, self._process)
        running = [self._keep(self._caller()) for _ in range(callers)]
        all_callers = asyncio.gather(*running, return_exceptions=True)
        all_callers.add_done_callback(lambda _: self._over.set())

    async def _caller(self) -> None:
        """Make one call after the other, until the run is over."""
        while not self._interrupted and (now := self.now()) < self._plan.total_duration:
            self._recording.arrival(now, now, self._in_flight + 1, accepted=True)
            request = self._requests.next()
            call, sent = self._start(request)
            await self._finish(call, request, sent, sent)

    async def _wait_for_calls(self) -> None:
        """Wait for the calls in flight; cancel those that have no result long after their deadline."""
        since = self.now()
        while self._tasks:
            timeout = INTERRUPTED_GRACE_S if self._interrupted else self._plan.deadline + RUN_OUT_S
            if self.now() > since + timeout:
                break
            await asyncio.wait(set(self._tasks), timeout=POLL_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _heartbeat(self) -> None:
        """Measure how late the event loop wakes a task, also for wake-ups due while the loop is blocked."""
        due = self.now()
        while True:
            due += HEARTBEAT_S
            await asyncio.sleep(due - self.now())
            if due >= self._plan.warm_up:
                self._recording.lag.record(self.now() - due)
            # The wait for the last calls is not load. It would make the last second look idle.
            if not self._over.is_set() and self._second(self._marked[0]) != self._second(self.now()):
                self._mark()

    def _second(self, now: float) -> int:
        return math.floor(now - self._plan.warm_up)

    def _mark(self) -> None:
        """Record the share of busy time of the event loop in the past second."""
        (since, waited_then), now, waited = self._marked, self.now(), self._waited()
        self._marked = (now, waited)
        if (number := self._second(since)) >= 0:
            self._recording.seconds[number].busy = 1 - (waited - waited_then) / max(now - since, 1e-3)


class _Arrivals:
    """Calls `arrive` for each intended time when it is due."""

    def __init__(
        self,
        times: Iterator[float],
        arrive: Callable[[float], None],
        started_at: float,
        over: asyncio.Event,
    ) -> None:
        self._times = times
        self._arrive = arrive
        self._started_at = started_at
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._next = next(times, None)

    def start_due(self) -> None:
        """Start the arrivals that are due, and schedule this method for the next one."""
        for _ in range(BATCH_MAX):
            if self._next is None:
                self._over.set()
            if self._next is None or self._over.is_set():
                return
            if self._started_at + self._next > time.monotonic():
                self._loop.call_at(self._started_at + self._next, self.start_due)
                return
            self._arrive(self._next)
            self._next = next(self._times, None)
        self._loop.call_soon(self.start_due)
