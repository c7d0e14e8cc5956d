"""Virtual time: one clock, the event loops of several simulated processes, and timed events.

`Timeline.run` repeats one step: of all processes that have something to do now, one, chosen by the dice,
runs one callback of its event loop. When no process has anything to do, the clock jumps to the next timer
or event. Nothing waits, and the same dice give the same order. Between two callbacks a process can be
frozen or killed: that is between any two awaits of its tasks.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from asyncio import events
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import Any, Final

import pytest

RESOLUTION_S: Final = 1e-6
"""Timers may be early by this, in seconds: a suspension changes the clock by a rounding error."""
STEPS_MAX: Final = 50_000
"""More callbacks than processes ever have to run at one time."""
STARTED_S: Final = 1_800_000_000.0
"""The true time, in seconds since 1970, when the virtual clock is zero."""


class HostLoop(asyncio.SelectorEventLoop):
    """The event loop of one simulated process: `step` runs one callback."""

    # Attributes of asyncio's loop that the stubs do not declare.
    _ready: deque[Any]
    _scheduled: list[Any]
    _selector: Any
    _transports: Any
    _process_events: Callable[[Any], None]

    def __init__(self, now_s: Callable[[], float]) -> None:
        super().__init__()
        self._now_s = now_s
        self.has_input = True
        """Whether a descriptor may be ready: the network sets it."""
        self.connector: Any = None
        """Makes the connections of this process; see `network`."""
        self.set_task_factory(None)

    def time(self) -> float:
        """Return the virtual time."""
        return self._now_s()

    @property
    def due_s(self) -> float | None:
        """The time of the next callback; None if there is none."""
        if self._ready or self.has_input:
            return 0.0
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
        return self._scheduled[0]._when if self._scheduled else None

    def step(self) -> None:
        """Run the next callback that is due, if there is one."""
        if not self._ready:
            self.has_input = False
            self._process_events(self._selector.select(0))
            now_s = self.time() + RESOLUTION_S
            while self._scheduled and self._scheduled[0]._when <= now_s:
                timer = heapq.heappop(self._scheduled)
                timer._scheduled = False
                self._ready.append(timer)
        if self._ready:
            handle = self._ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _timer_handle_cancelled(self, handle: Any) -> None:
        """Do not count cancelled timers: `due_s` removes them."""

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Run a function of a thread pool at once."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  (the awaiting task gets it)
            future.set_exception(error)
        return future

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Connect as the network decides."""
        await self.connector.reach()

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Any, *_: Any, sock: Any, **__: Any
    ) -> Any:
        """Replace a connected socket by one end of a pair whose other end belongs to the network."""
        sock.close()
        near = self.connector.open()
        create: Any = self._create_connection_transport  # type: ignore[attr-defined]
        return await create(near, protocol_factory, None, None)


class Process:
    """What runs on a timeline: an event loop that can be frozen, suspended and killed."""

    def __init__(self, timeline: Timeline, name: str) -> None:
        self.timeline = timeline
        self.name = name
        self.frozen_until_s = 0.0
        self.suspended_s = 0.0
        """How long its machine was suspended; CLOCK_MONOTONIC does not count that."""
        self.frozen_s = 0.0
        """How long it did not run, in all."""
        self.alive = True
        self.steps = 0
        self.loop = HostLoop(self.monotonic_s)
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))

    def monotonic_s(self) -> float:
        """Return CLOCK_MONOTONIC."""
        return self.timeline.now_s - self.suspended_s

    @property
    def next_s(self) -> float | None:
        """When it has something to do next, on the timeline; None if never."""
        due_s = self.loop.due_s if self.alive else None
        return None if due_s is None else max(due_s + self.suspended_s, self.frozen_until_s)

    @property
    def ran_s(self) -> float:
        """How long it has not been frozen up to now, since the clock was zero."""
        ahead_s = max(self.frozen_until_s - self.timeline.now_s, 0.0)
        return self.timeline.now_s - (self.frozen_s - ahead_s)

    def freeze(self, seconds: float, *, suspended: bool = False) -> None:
        """Run no callback for some seconds; if the machine is suspended, its monotonic clock stops."""
        before_s = max(self.frozen_until_s, self.timeline.now_s)
        self.frozen_until_s = max(before_s, self.timeline.now_s + seconds)
        self.frozen_s += self.frozen_until_s - before_s
        if suspended:
            self.suspended_s += self.frozen_until_s - before_s

    def close(self) -> None:
        """Close the loop; none of its callbacks runs any more."""
        self.loop.set_exception_handler(lambda *_: None)
        self.loop._ready.clear()
        self.loop._scheduled.clear()
        for transport in list(self.loop._transports.values()):
            transport._sock = None  # it is closed
        self.loop.close()

    def step(self) -> None:
        """Run one callback."""
        self.steps += 1
        self.timeline.current = self
        events._set_running_loop(self.loop)
        try:
            self.loop.step()
        finally:
            events._set_running_loop(None)
            self.timeline.current = None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run code as if a callback of this process called it."""
        before, self.timeline.current = self.timeline.current, self
        events._set_running_loop(self.loop)
        try:
            yield
        finally:
            events._set_running_loop(before.loop if before else None)
            self.timeline.current = before


class Timeline:
    """The clock, the processes, and events at given times."""

    def __init__(self, dice: Random) -> None:
        self.now_s = 1_000.0
        self.dice = dice
        self.current: Process | None = None
        self.processes: list[Process] = []
        self.after_step: Callable[[Process], None] = lambda _: None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def at(self, at_s: float, event: Callable[[], None]) -> None:
        """Call a function at a time."""
        heapq.heappush(self._events, (max(at_s, self.now_s), next(self._number), event))

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Call a function some seconds from now."""
        self.at(self.now_s + seconds, event)

    def run(self, until_s: float) -> None:
        """Run everything that is due up to a time; raise RuntimeError if a process never waits."""
        steps = 0
        while True:
            times = [(process.next_s, process) for process in self.processes]
            ready = [process for next_s, process in times if next_s is not None and next_s <= self.now_s]
            if self._events and self._events[0][0] <= self.now_s:
                heapq.heappop(self._events)[2]()
            elif ready:
                process = ready[0] if len(ready) == 1 else self.dice.choice(ready)
                process.step()
                self.after_step(process)
                steps += 1
                if steps > STEPS_MAX:
                    raise RuntimeError(f"{process.name} runs and runs, and no time passes")
            else:
                upcoming = [next_s for next_s, _ in times if next_s is not None]
                upcoming += [event[0] for event in self._events[:1]]
                if not upcoming or min(upcoming) > until_s:
                    self.now_s = max(self.now_s, until_s)
                    return
                self.now_s, steps = min(upcoming), 0

    def monotonic_s(self) -> float:
        """Return CLOCK_MONOTONIC of the process that runs."""
        return self.now_s if self.current is None else self.current.monotonic_s()

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Let time.monotonic return the virtual time."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "monotonic", self.monotonic_s)
            yield
