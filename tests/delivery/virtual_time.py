"""An event loop whose time jumps to the next timer where there is nothing to do: seconds cost nothing."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class Stuck(Exception):
    """Every task waits for something that nothing will bring about."""


class _Jumping(selectors.PollSelector):
    """Lets the loop's time pass instead of waiting."""

    now_s = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Look what is ready, and where nothing is, let the time of waiting pass at once."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise Stuck
        if not ready and timeout:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in a time of its own."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time."""
        return self._jumping.now_s


def pass_at_once(seconds: float) -> None:
    """Let time pass within one step of the loop, as for a process that is stopped and continued."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualLoop):
        loop._jumping.now_s += seconds


@contextmanager
def clock_of(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let the monotonic clock show the loop's time: deadlines are told by the one, timers by the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", loop.time)
        yield


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time, for tests that need a loop for each example."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, clock_of(runner.get_loop()):
        return runner.run(coroutine)
