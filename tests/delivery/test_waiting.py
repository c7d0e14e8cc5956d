"""Waiting for a limited time: futures with deadlines that share one timer."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import pytest

from service.waiting import CLEAN_MIN, Deadlines
from tests.delivery.virtual_time import VirtualLoop

WAITS_S: Final = (3.0, 1.0, 2.0, 2.0, -1.0, 0.1)


def timers() -> list[Any]:
    """Return the timers of the loop that will fire."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return [timer for timer in getattr(loop, "_scheduled") if not timer.cancelled()]  # noqa: B009


async def test_each_future_is_done_at_its_deadline() -> None:
    deadlines, began = Deadlines(), time.monotonic()
    ended: dict[int, float] = {}

    async def wait(number: int, wait_s: float) -> None:
        await deadlines.future(began + wait_s)
        ended[number] = time.monotonic() - began

    await asyncio.gather(*(wait(number, wait_s) for number, wait_s in enumerate(WAITS_S)))
    assert ended == pytest.approx({number: max(wait_s, 0.0) for number, wait_s in enumerate(WAITS_S)})
    assert not timers()


async def test_all_futures_share_one_timer_for_the_earliest_deadline() -> None:
    deadlines, now_s = Deadlines(), time.monotonic()
    futures = [deadlines.future(now_s + wait_s) for wait_s in (5.0, 9.0, 4.0, 7.0)]
    (timer,) = timers()
    assert timer.when() == pytest.approx(now_s + 4.0)
    for future in futures:
        future.set_result(None)
    await asyncio.sleep(4.5)
    assert not timers()


async def test_future_that_was_done_before_or_cancelled_stays_so() -> None:
    deadlines, now_s = Deadlines(), time.monotonic()
    early, gone, last = (deadlines.future(now_s + wait_s) for wait_s in (1.0, 1.0, 2.0))
    early.set_result(None)
    gone.cancel()
    await last
    assert time.monotonic() - now_s == pytest.approx(2.0)
    assert (early.cancelled(), gone.cancelled()) == (False, True)


async def test_futures_that_are_done_are_forgotten() -> None:
    deadlines, now_s = Deadlines(), time.monotonic()
    waiting = [deadlines.future(now_s + 60.0 + number) for number in range(10)]
    for _ in range(10 * CLEAN_MIN):
        deadlines.future(now_s + 99.0).set_result(None)
    assert len(deadlines._futures) <= 2 * CLEAN_MIN
    for number, future in enumerate(waiting):
        await future
        assert time.monotonic() - now_s == pytest.approx(60.0 + number)
