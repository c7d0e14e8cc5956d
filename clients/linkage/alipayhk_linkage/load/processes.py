"""Leads the processes of a run: starts them together, gathers what they tell, ends them."""

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
from .tally import Tally

LEAD_S: Final = 0.1
"""How far ahead the start is: by then every process knows of it."""
LOOK_EVERY_S: Final = 0.1
READY_S: Final = 60.0
END_S: Final = 5.0


class UnreachableError(Exception):
    """The gateway cannot be reached; its text is the address."""


class NotStartedError(Exception):
    """The generator's own processes did not start; its text says so."""


class Processes:
    """The processes of one run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._pipes: dict[Connection, int] = {}
        self._children: list[Any] = []
        self._in_flight: dict[int, int] = {}

    def run(self, tally: Tally, look: Callable[[Tally, float, int], None]) -> None:
        """Run it; `look` is called several times a second with the time and how many are in flight."""
        with _interruptions() as interrupted:
            try:
                self._start()
                began = self._begin(interrupted)
                if began is not None:
                    self._gather(tally, began, interrupted, look)
                tally.interrupted = interrupted.is_set
            finally:
                self._end()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        # Ctrl-C reaches the whole group, and this process says what becomes of it. The others inherit that
        # they ignore it, so that it holds in the middle of their imports too.
        with _on_interruption(signal.SIG_IGN):
            for number in range(self._plan.processes):
                ours, theirs = context.Pipe()
                child = context.Process(target=worker.main, args=(theirs, self._plan, number), daemon=True)
                child.start()
                theirs.close()
                self._pipes[ours] = number
                self._children.append(child)

    def _begin(self, interrupted: _Flag) -> float | None:
        """Wait until all are ready; return the start, or None where there is none."""
        waiting: set[Any] = set(self._pipes)
        give_up = time.monotonic() + READY_S
        while waiting and not interrupted.is_set:
            for pipe in wait(list(waiting), LOOK_EVERY_S):
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
        began = time.monotonic() + LEAD_S
        self._tell(worker.Start(began))
        return began

    def _gather(
        self, tally: Tally, began: float, interrupted: _Flag, look: Callable[[Tally, float, int], None]
    ) -> None:
        stopped = math.inf
        give_up = began + self._plan.lasts + self._plan.deadline + RUN_OUT_S + 30
        working = dict(self._pipes)
        while working and time.monotonic() < give_up:
            for pipe in wait(list(working), LOOK_EVERY_S):
                number = self._pipes[pipe]  # type: ignore[index]
                message = _received(pipe)
                if isinstance(message, worker.Passed):
                    tally.add_seconds(message.seconds)
                    self._in_flight[number] = message.in_flight
                    continue
                if isinstance(message, worker.Done):
                    tally.add(message.recording)
                self._in_flight.pop(number, None)
                del working[pipe]  # type: ignore[arg-type]
            if interrupted.is_set and math.isinf(stopped):
                stopped = time.monotonic()
                give_up = stopped + END_S * 2
                self._tell(worker.Stop())
            look(tally, time.monotonic() - began, sum(self._in_flight.values()))
        # Without an interruption all arrivals came, though the last one may be due well before the end.
        passed = min(stopped - began, self._plan.lasts)
        tally.measured = max(0.0, round(passed - self._plan.warm_up, 6))
        tally.processes_lost = self._plan.processes - tally.processes

    def _tell(self, message: object) -> None:
        for pipe in self._pipes:
            try:
                pipe.send(message)
            except OSError:  # it has ended, which is seen where it is read from
                continue

    def _end(self) -> None:
        self._tell(worker.Stop())
        for pipe in self._pipes:
            pipe.close()
        give_up = time.monotonic() + END_S
        for child in self._children:
            child.join(max(0.0, give_up - time.monotonic()))
            if child.is_alive():
                child.kill()
                child.join()


def _received(pipe: Any) -> object:
    """Return a message; None where the process has ended without one."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


class _Flag:
    is_set = False


@contextmanager
def _interruptions() -> Iterator[_Flag]:
    """Note Ctrl-C, or the SIGTERM of a CI that gives up, instead of ending; the second one ends."""
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
