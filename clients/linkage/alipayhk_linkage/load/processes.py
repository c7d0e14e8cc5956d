"""Run the generator's processes: start them at the same moment, collect their recordings, stop them."""

from __future__ import annotations

import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Final

from . import worker
from .plan import RUN_OUT_S, Plan
from .totals import Totals

LEAD_S: Final = 0.1
"""The start time is this far ahead, so that every process receives it in time."""
POLL_S: Final = 0.1
READY_S: Final = 60.0
STOP_S: Final = 5.0


class UnreachableError(Exception):
    """The gateway cannot be reached. The text is its address."""


class NotStartedError(Exception):
    """A process of the generator did not start."""


class Processes:
    """The generator's processes in one run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._pipes: dict[Connection, int] = {}
        self._children: list[Any] = []
        self._in_flight: dict[int, int] = {}

    def run(self, totals: Totals, update: Callable[[Totals, float, int], None]) -> None:
        """Run the load test, and add the results to `totals`.

        `update` is called several times per second with the totals, the seconds since the start, and the
        number of calls in flight. Raise UnreachableError or NotStartedError if the run cannot start.
        """
        with _interruptions() as interrupted:
            try:
                self._start()
                started_at = self._start_load(interrupted)
                if started_at is not None:
                    self._collect(totals, started_at, interrupted, update)
                totals.interrupted = interrupted.is_set
            finally:
                self._stop()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        # Ctrl-C reaches the whole process group. This process handles it. The child processes inherit that
        # they ignore it, so they ignore it even while they import modules.
        with _on_interruption(signal.SIG_IGN):
            for number in range(self._plan.processes):
                ours, theirs = context.Pipe()
                child = context.Process(target=worker.main, args=(theirs, self._plan, number), daemon=True)
                child.start()
                theirs.close()
                self._pipes[ours] = number
                self._children.append(child)

    def _start_load(self, interrupted: _Flag) -> float | None:
        """Wait until all processes are ready; return the start time, or None if the run was interrupted."""
        waiting: set[Any] = set(self._pipes)
        give_up = time.monotonic() + READY_S
        while waiting and not interrupted.is_set:
            for pipe in wait(list(waiting), POLL_S):
                message = _received(pipe)
                match message:
                    case worker.Ready():
                        waiting.discard(pipe)
                    case worker.Unreachable(target):
                        raise UnreachableError(target)
                    case _:
                        raise NotStartedError("a process of the generator did not start")
            if time.monotonic() > give_up:
                raise NotStartedError("the processes of the generator did not start in time")
        if interrupted.is_set:
            return None
        started_at = time.monotonic() + LEAD_S
        self._send(worker.Start(started_at))
        return started_at

    def _collect(
        self,
        totals: Totals,
        started_at: float,
        interrupted: _Flag,
        update: Callable[[Totals, float, int], None],
    ) -> None:
        stopped = math.inf
        give_up = started_at + self._plan.total_duration + self._plan.deadline + RUN_OUT_S + 30
        working = dict(self._pipes)
        while working and time.monotonic() < give_up:
            for pipe in wait(list(working), POLL_S):
                number = self._pipes[pipe]  # type: ignore[index]
                message = _received(pipe)
                if isinstance(message, worker.Progress):
                    totals.add_seconds(message.seconds)
                    self._in_flight[number] = message.in_flight
                    continue
                if isinstance(message, worker.Done):
                    totals.add(message.recording)
                self._in_flight.pop(number, None)
                del working[pipe]  # type: ignore[arg-type]
            if interrupted.is_set and math.isinf(stopped):
                stopped = time.monotonic()
                give_up = stopped + STOP_S * 2
                self._send(worker.Stop())
            update(totals, time.monotonic() - started_at, sum(self._in_flight.values()))
        # Unless interrupted, the run took its whole duration, even if the last arrival was due long before.
        elapsed = min(stopped - started_at, self._plan.total_duration)
        totals.measured = max(0.0, round(elapsed - self._plan.warm_up, 6))
        totals.processes_lost = self._plan.processes - totals.processes

    def _send(self, message: object) -> None:
        for pipe in self._pipes:
            try:
                pipe.send(message)
            except OSError:  # the process has exited, which `_collect` notices
                continue

    def _stop(self) -> None:
        self._send(worker.Stop())
        for pipe in self._pipes:
            pipe.close()
        give_up = time.monotonic() + STOP_S
        for child in self._children:
            child.join(max(0.0, give_up - time.monotonic()))
            if child.is_alive():
                child.kill()
                child.join()


def _received(pipe: Any) -> object:
    """Return a message, or None if the process exited without one."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


class _Flag:
    is_set = False


@contextmanager
def _interruptions() -> Iterator[_Flag]:
    """Set the flag on the first SIGINT (Ctrl-C) or SIGTERM; raise KeyboardInterrupt on the second."""
    flag = _Flag()

    def note(_number: int, _frame: FrameType | None) -> None:
        if flag.is_set:
            raise KeyboardInterrupt
        flag.is_set = True

    with _on_interruption(note):
        yield flag


@contextmanager
def _on_interruption(do: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    before = {number: signal.signal(number, do) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
