"""Unit tests of backoff, budget, breaker and limiter."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.alipayhk.wire.errors import Unsigned
from service.delivery.pacing import Breaker, Limiter, RetryBudget, backoff_s, is_failing

# -- backoff


@pytest.mark.parametrize(
    ("retry", "longest_s"), [(1, 0.2), (2, 0.4), (3, 0.8), (4, 1.6), (5, 2.0), (6, 2.0), (5000, 2.0)]
)
def test_backoff_is_random_below_a_capped_exponential(retry: int, longest_s: float) -> None:
    for drawn in (0.0, 0.25, 0.5, 1.0):
        assert backoff_s(retry, lambda drawn=drawn: drawn) == pytest.approx(longest_s * drawn)  # type: ignore[misc]


@pytest.mark.parametrize(("http_status", "failing"), [(200, False), (499, False), (500, True), (503, True)])
def test_unsigned_response_is_a_failure_of_alipayhk_from_http_500_on(
    http_status: int, failing: bool
) -> None:
    assert is_failing(Unsigned("no signature", http_status=http_status)) is failing


# -- the budget


def test_new_budget_has_ten_retries_and_ten_more_each_second() -> None:
    budget = RetryBudget()
    assert [budget.spend(100.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not budget.spend(100.05)
    assert budget.spend(100.16)
    assert not budget.spend(100.16)
    assert [budget.spend(1000.0) for _ in range(11)] == [True] * 10 + [False]


def test_five_first_attempts_earn_one_retry_up_to_ten() -> None:
    budget = RetryBudget()
    assert [budget.spend(0.0) for _ in range(11)] == [True] * 10 + [False]
    for _ in range(6):
        budget.earn()
    assert [budget.spend(0.0) for _ in range(2)] == [True, False]
    for _ in range(1000):
        budget.earn()
    assert [budget.spend(0.0) for _ in range(11)] == [True] * 10 + [False]


@pytest.mark.parametrize(("workers", "at_once", "each_s"), [(2, 5, 5), (4, 2, 2), (40, 1, 0)])
def test_workers_share_the_retries_of_each_second(workers: int, at_once: int, each_s: int) -> None:
    """A worker keeps at least one, so that it can retry at all."""
    budget = RetryBudget(workers)
    assert sum(budget.spend(100.0) for _ in range(12)) == at_once
    assert sum(budget.spend(101.0) for _ in range(12)) == each_s


@given(st.lists(st.tuples(st.floats(0, 0.5), st.booleans()), max_size=400))
def test_retries_are_at_most_a_fifth_of_first_attempts_plus_ten_a_second(
    events: list[tuple[float, bool]],
) -> None:
    budget, now_s, first, retries = RetryBudget(), 0.0, 0, 0
    for passed_s, is_first in events:
        now_s += passed_s
        if is_first:
            budget.earn()
            first += 1
        else:
            retries += budget.spend(now_s)
        assert retries <= 0.2 * first + 10 * (now_s + 1) + 1e-6


# -- the breaker


def failing(breaker: Breaker, count: int, *, at_s: float = 0.0, every_s: float = 0.0) -> None:
    for number in range(count):
        breaker.failed(at_s + number * every_s)


def test_breaker_opens_after_twenty_failures_within_ten_seconds() -> None:
    breaker = Breaker()
    failing(breaker, 19)
    assert breaker.allow(0.0)
    failing(breaker, 1, at_s=10.0)
    assert breaker.is_open
    assert not breaker.allow(10.0)


@pytest.mark.parametrize(("workers", "failures"), [(1, 20), (3, 7), (8, 4), (40, 4)])
def test_workers_share_the_failures_that_open_their_breakers(workers: int, failures: int) -> None:
    breaker = Breaker(workers)
    failing(breaker, failures - 1)
    assert not breaker.is_open
    failing(breaker, 1)
    assert breaker.is_open


def test_breaker_stays_closed_while_failures_are_rare() -> None:
    breaker = Breaker()
    failing(breaker, 1000, every_s=0.527)
    assert not breaker.is_open
    failing(breaker, 20, at_s=527.0, every_s=0.526)
    assert breaker.is_open


def test_one_success_resets_the_failures() -> None:
    breaker = Breaker()
    failing(breaker, 19)
    breaker.succeeded()
    failing(breaker, 19)
    assert not breaker.is_open


def test_open_breaker_allows_one_probe_after_five_seconds() -> None:
    breaker = Breaker()
    failing(breaker, 20)
    assert not breaker.allow(4.999)
    assert breaker.allow(5.0)
    assert not breaker.allow(5.0)
    breaker.release_probe()
    assert breaker.allow(5.1)


def test_failed_probe_keeps_it_open_for_five_more_seconds() -> None:
    breaker = Breaker()
    failing(breaker, 20)
    assert breaker.allow(5.0)
    breaker.failed(9.0)
    breaker.release_probe()
    assert not breaker.allow(13.9)
    assert breaker.allow(14.0)


def test_successful_probe_closes_it() -> None:
    breaker = Breaker()
    failing(breaker, 20)
    assert breaker.allow(5.0)
    breaker.succeeded()
    breaker.release_probe()
    assert not breaker.is_open
    assert all(breaker.allow(5.1) for _ in range(3))
    failing(breaker, 19, at_s=5.2)
    assert not breaker.is_open


# -- the limiter


@asynccontextmanager
async def slot(limiter: Limiter) -> AsyncIterator[None]:
    if not limiter.take():
        await limiter.wait()
    try:
        yield
    finally:
        limiter.release()


class Held:
    """Tasks that take a slot and keep it until the test releases it."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.inside: list[int] = []
        self.events: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def _hold(self, number: int) -> None:
        async with slot(self.limiter):
            self.inside.append(number)
            await self.events[number].wait()
        self.inside.remove(number)

    async def take(self, *numbers: int) -> None:
        for number in numbers:
            self.events[number] = asyncio.Event()
            self.tasks[number] = asyncio.create_task(self._hold(number))
            await asyncio.sleep(0)

    async def release(self, *numbers: int) -> None:
        for number in numbers:
            self.events[number].set()
            await asyncio.sleep(0.001)

    async def cancel(self, *numbers: int) -> None:
        for number in numbers:
            self.tasks[number].cancel()
        await asyncio.sleep(0.001)


async def test_tasks_above_the_limit_wait_in_order() -> None:
    held = Held(Limiter(2))
    await held.take(1, 2, 3, 4, 5)
    assert held.inside == [1, 2]
    await held.release(2)
    assert held.inside == [1, 3]
    await held.release(1, 3)
    assert held.inside == [4, 5]
    await held.release(4, 5)
    assert held.limiter._taken == 0


async def test_cancel_while_waiting_loses_no_slot() -> None:
    held = Held(Limiter(1))
    await held.take(1, 2, 3, 4)
    await held.cancel(2, 4)
    await held.release(1)
    assert held.inside == [3]
    await held.release(3)
    assert (held.limiter._taken, list(held.limiter._waiting)) == (0, [])


async def test_task_cancelled_when_it_gets_a_slot_passes_it_on() -> None:
    held = Held(Limiter(1))
    await held.take(1, 2, 3)
    held.events[1].set()
    for _ in range(10):
        await asyncio.sleep(0)
        if held.limiter._waiting and len(held.limiter._waiting) == 1:
            break
    await held.cancel(2)
    assert held.inside == [3]
    await held.release(3)
    assert held.limiter._taken == 0


async def test_cancel_of_a_task_with_a_slot_frees_it() -> None:
    held = Held(Limiter(1))
    await held.take(1, 2)
    await held.cancel(1)
    assert held.inside[-1] == 2
    await held.release(2)
    assert held.limiter._taken == 0


def test_limit_falls_by_three_tenths_once_a_second_and_not_below_four() -> None:
    limiter = Limiter(100)
    limiter.on_overload(0.0)
    limiter.on_overload(0.9)
    assert limiter.limit == 70
    limiter.on_overload(1.0)
    assert limiter.limit == 49
    for second in range(2, 60):
        limiter.on_overload(float(second))
    assert limiter.limit == 4


def test_limit_rises_by_one_a_round_and_not_above_its_maximum() -> None:
    limiter = Limiter(10)
    for second in range(60):
        limiter.on_overload(float(second))
    for _ in range(5):
        limiter.on_success()
    assert limiter.limit == 5
    for _ in range(1000):
        limiter.on_success()
    assert limiter.limit == 10


@pytest.mark.parametrize("limit_max", [1, 2, 3])
def test_limit_below_the_minimum_is_not_raised_by_an_overload(limit_max: int) -> None:
    limiter = Limiter(limit_max)
    for second in range(60):
        limiter.on_overload(float(second))
    assert limiter.limit == limit_max


async def test_lower_limit_ends_no_task_and_starts_none_above_it() -> None:
    held = Held(Limiter(8))
    await held.take(*range(1, 12))
    for second in range(60):
        held.limiter.on_overload(float(second))
    assert len(held.inside) == 8
    await held.release(1, 2, 3, 4)
    assert held.inside == [5, 6, 7, 8]
    await held.release(5)
    assert held.inside == [6, 7, 8, 9]
    await held.release(6, 7, 8, 9, 10, 11)
    assert held.limiter._taken == 0


DICE: Final = random.Random(7)


async def test_thousand_tasks_leave_every_slot_free() -> None:
    limiter, inside = Limiter(7), 0

    async def one() -> None:
        nonlocal inside
        async with slot(limiter):
            inside += 1
            assert inside <= 7
            try:
                await asyncio.sleep(DICE.random())
            finally:
                inside -= 1

    tasks = []
    for _ in range(1000):
        tasks.append(asyncio.create_task(one()))
        if DICE.random() < 0.5:
            await asyncio.sleep(DICE.random() / 10)
        if DICE.random() < 0.3:
            DICE.choice(tasks).cancel()
        if DICE.random() < 0.1:
            limiter.on_overload(time.monotonic())
        else:
            limiter.on_success()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (limiter._taken, inside, list(limiter._waiting)) == (0, 0, [])
