"""An event loop that jumps to its next timer instead of waiting, so that tests need no real time."""

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
    """Every task waits, and no timer is set: a deadlock."""


class _Jumping(selectors.PollSelector):
    """Advances the loop's time instead of waiting."""

    now_s = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the ready events; if no event is ready, advance the time by the timeout."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise Stuck
        if not ready and timeout:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with virtual time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time."""
        return self._jumping.now_s


def pass_at_once(seconds: float) -> None:
    """Advance the time within one step of the loop, as for a process that is stopped and continued."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualLoop):
        loop._jumping.now_s += seconds


@contextmanager
def clock_of(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let time.monotonic return the loop's time, because deadlines use the one and timers the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", loop.time)
        yield


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new loop with virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, clock_of(runner.get_loop()):
        return runner.run(coroutine)
