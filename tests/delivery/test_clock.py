"""Calls while AlipayHK's clock differs: BindAccount stops, SyncLinkage counts as failing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Final

import pytest

from clients.alipayhk.wire import errors
from service.delivery.clock_skew import PROBE_EVERY_S
from service.delivery.pacing import FAILING_CALLS, OPEN_S
from service.outcomes.refusal import Refusal
from tests.delivery.world import BIZ_TIME_MS, OK, UNREACHABLE, UNREACHABLE_TOLD, S, Step, World, wall_s
from tests.service.fakes import call_of

SKEWED: Final = Step(errors.OutsideWindow(-600.0), skew_s=-600.0)
AGREES: Final = replace(S, skew_s=0.0)
REPLAYED: Final = ("RESPONSE_REPLAYED", "unknown", "operator")
STOPPED: Final = ("CIRCUIT_OPEN", "not_sent", "same_request_id")


async def test_bind_account_stops_after_one_response_outside_the_window(world: World) -> None:
    world.client.script("a", SKEWED)
    reported = await world.deliver(world.bind("a"))
    assert (reported.short, reported.facts["clock_skew_s"]) == (REPLAYED, "-600")
    reported = await world.deliver(world.bind("b"))
    assert (reported.short, reported.facts["clock_skew_s"]) == (STOPPED, "-600")
    assert (world.client.ids_seen(), await world.state("b")) == (["a"], "none")
    assert (await world.deliver(world.sync("c"))).short == OK


async def test_sync_linkage_outside_the_window_stops_bind_account_until_one_inside(world: World) -> None:
    world.client.script("a", SKEWED)
    world.client.script("c", AGREES)
    assert (await world.deliver(world.sync("a"))).short == REPLAYED
    assert (await world.deliver(world.bind("b"))).short == STOPPED
    assert (await world.deliver(world.sync("c"))).short == OK
    assert (await world.deliver(world.bind("b"))).short == OK


async def test_response_to_a_request_sent_before_the_clock_was_set_does_not_end_the_stop(
    world: World,
) -> None:
    world.client.script("a", SKEWED)
    world.client.script("c", replace(S, skew_s=-600.0))
    await world.deliver(world.bind("a"))
    assert (await world.deliver(world.sync("c"))).short == OK
    assert (await world.deliver(world.bind("b"))).short == STOPPED


async def test_finished_bind_account_is_replayed_while_others_are_stopped(world: World) -> None:
    assert (await world.deliver(world.bind("a"))).short == OK
    world.client.script("b", SKEWED)
    await world.deliver(world.bind("b"))
    assert (await world.deliver(world.bind("a"))).response.replayed
    assert (await world.deliver(world.bind("b"))).short == ("OUTCOME_IN_DOUBT", "unknown", "operator")


async def test_one_bind_account_in_five_minutes_is_a_probe(world: World) -> None:
    world.client.script("a", SKEWED)
    await world.deliver(world.bind("a"))
    await asyncio.sleep(PROBE_EVERY_S)
    world.client.script("b", SKEWED)
    assert (await world.deliver(world.bind("b"))).short == REPLAYED
    assert (await world.deliver(world.bind("c"))).short == STOPPED
    await asyncio.sleep(PROBE_EVERY_S)
    world.client.script("c", AGREES)
    assert (await world.deliver(world.bind("c"))).short == OK
    assert (await world.deliver(world.bind("d"))).short == OK


async def test_sync_linkages_outside_the_window_open_the_breaker(world: World) -> None:
    world.client.otherwise = lambda _: SKEWED
    for number in range(FAILING_CALLS):
        assert (await world.deliver(world.sync(str(number)))).short == REPLAYED
    assert (await world.deliver(world.sync("x"))).short == STOPPED


@pytest.mark.parametrize(("ahead_ms", "reason"), [(299_900, "OK"), (300_100, "BIZ_TIME_IN_FUTURE")])
async def test_biz_time_up_to_five_minutes_ahead_is_sent(world: World, ahead_ms: int, reason: str) -> None:
    order = world.sync("a", biz_time=round(wall_s() * 1000) - BIZ_TIME_MS + ahead_ms)
    assert (await world.deliver(order)).reason == reason


async def test_biz_time_in_the_future_is_reported_with_its_skew(world: World) -> None:
    ahead_ms = 3_600_000 + 100_000_000 * 1000  # the clock of a World is 100,000,000 s ahead of BIZ_TIME_MS
    order = world.sync("a", biz_time=ahead_ms)
    with pytest.raises(Refusal) as refused:
        await world.delivery.deliver(order, call_of())
    assert [violation.field for violation in refused.value.violations] == ["biz_time"]
    reported = await world.deliver(order)
    assert reported.reason == "BIZ_TIME_IN_FUTURE"
    assert abs(int(reported.facts["clock_skew_s"]) - 3600 + round(asyncio.get_running_loop().time())) <= 1


async def test_unsent_bind_account_is_not_tried_again_once_the_clocks_differ(world: World) -> None:
    world.client.script("a", UNREACHABLE, S)
    world.client.script("b", SKEWED)
    first = world.start(world.bind("a"))
    await asyncio.sleep(0.01)
    assert (await world.deliver(world.bind("b"))).short == REPLAYED
    assert (await first).short == UNREACHABLE_TOLD
    assert (world.client.ids_seen(), await world.state("a")) == (["b"], "none")


async def test_breaker_keeps_its_probe_if_the_clocks_differ(world: World) -> None:
    pace = world.delivery._senders["BindAccount"].pace
    for _ in range(FAILING_CALLS):
        pace.breaker.failed(time.monotonic())
    world.client.script("a", SKEWED)
    await world.deliver(world.sync("a"))
    await asyncio.sleep(OPEN_S)
    with pytest.raises(Refusal):
        pace.admit()
    assert not pace.breaker.would_reject(time.monotonic())
