"""One process at work: starts calls when they are due, and writes down how they end.

The clock is the loop's: seconds from the start of the run. Arrivals are taken from a list of intended
times that was fixed beforehand; a loop that wakes late starts what is due at once, and moves nothing.
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
from .recording import End, Recording, Told
from .requests import Request, Requests

HEARTBEAT_S: Final = 0.01
"""How often the loop's own lag is looked at."""
AT_ONCE: Final = 32
"""So many overdue arrivals are started before answers are looked at again."""
INTERRUPTED_GRACE_S: Final = 1.0
LOOK_EVERY_S: Final = 0.1
"""How often the run-out looks whether it was interrupted."""


Call = grpc.aio.UnaryUnaryCall[bytes, bytes]


class Rpcs(Protocol):
    """Starts a call."""

    def start(self, request: Request, timeout: float) -> Call:
        """Start it."""
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
        self._room = plan.share(plan.max_in_flight, process)
        self._in_flight = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._interrupted = False
        self._began = 0.0
        self._marked = (0.0, 0.0)

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return self._in_flight

    def now(self) -> float:
        """Return the time since the start of the run."""
        return time.monotonic() - self._began

    def interrupt(self) -> None:
        """Start no more calls."""
        self._interrupted = True
        self._recording.over = min(self._recording.over, self.now())
        self._over.set()

    async def work(self, began: float, times: Iterator[float] | None) -> None:
        """Work from that moment on, by these intended times or, without any, in a closed loop."""
        self._began = began
        self._recording.over = self._plan.lasts
        await asyncio.sleep(-self.now())
        self._marked = (self.now(), self._waited())
        beating = asyncio.ensure_future(self._beat())
        if times is None:
            self._close_the_loop()
        else:
            _Arrivals(times, self._arrive, began, self._over).begin()
        await self._over.wait()
        self._mark()
        await self._run_out()
        beating.cancel()

    def _arrive(self, intended: float) -> None:
        room = self._in_flight < self._room
        self._recording.arrival(intended, self.now(), self._in_flight + 1, room=room)
        if room:
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
            await call
        except grpc.aio.AioRpcError as error:
            read = LinkageError.of(error)
            code, reason, outcome = read.code.name, read.reason, read.outcome.value
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                self._recording.never_ended(intended)
                if self._interrupted:
                    self._tell(request, "CANCELLED", "unknown")
                raise
            code, outcome = "CANCELLED", "unknown"
        now = self.now()
        self._in_flight -= 1
        self._recording.end(End(request.rpc, request.asked, code, reason, outcome), intended, sent, now)
        self._tell(request, code, outcome)

    def _tell(self, request: Request, code: str, outcome: str) -> None:
        if self._recording.remember:
            told = Told(request.rpc, request.request_id, request.asked, code, outcome)
            self._recording.told.append(told)

    def _close_the_loop(self) -> None:
        callers = self._plan.share(self._plan.callers, self._process)
        running = [self._keep(self._call_again()) for _ in range(callers)]
        everybody = asyncio.gather(*running, return_exceptions=True)
        everybody.add_done_callback(lambda _: self._over.set())

    async def _call_again(self) -> None:
        while not self._interrupted and (now := self.now()) < self._plan.lasts:
            self._recording.arrival(now, now, self._in_flight + 1, room=True)
            request = self._requests.next()
            call, sent = self._start(request)
            await self._finish(call, request, sent, sent)

    async def _run_out(self) -> None:
        """Wait for what is under way; what has not ended long after its deadline never will."""
        since = self.now()
        while self._tasks:
            patience = INTERRUPTED_GRACE_S if self._interrupted else self._plan.deadline + RUN_OUT_S
            if self.now() > since + patience:
                break
            await asyncio.wait(set(self._tasks), timeout=LOOK_EVERY_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _beat(self) -> None:
        """Measure how late the loop wakes whoever asks it to, those included who asked while it slept."""
        due = self.now()
        while True:
            due += HEARTBEAT_S
            await asyncio.sleep(due - self.now())
            if due >= self._plan.warm_up:
                self._recording.lag.record(self.now() - due)
            # What runs out is no load: it would make the last second look idle.
            if not self._over.is_set() and self._second(self._marked[0]) != self._second(self.now()):
                self._mark()

    def _second(self, now: float) -> int:
        return math.floor(now - self._plan.warm_up)

    def _mark(self) -> None:
        """Note for how much of the second that ends the loop had something to do."""
        (since, waited_then), now, waited = self._marked, self.now(), self._waited()
        self._marked = (now, waited)
        if (number := self._second(since)) >= 0:
            self._recording.seconds[number].busy = 1 - (waited - waited_then) / max(now - since, 1e-3)


class _Arrivals:
    """Walks through the intended times."""

    def __init__(
        self, times: Iterator[float], arrive: Callable[[float], None], began: float, over: asyncio.Event
    ) -> None:
        self._times = times
        self._arrive = arrive
        self._began = began
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._next = next(times, None)

    def begin(self) -> None:
        """Start what is due, and come back when the next one is."""
        for _ in range(AT_ONCE):
            if self._next is None:
                self._over.set()
            if self._next is None or self._over.is_set():
                return
            if self._began + self._next > time.monotonic():
                self._loop.call_at(self._began + self._next, self.begin)
                return
            self._arrive(self._next)
            self._next = next(self._times, None)
        self._loop.call_soon(self.begin)
