"""A retried call: its client hid the results of earlier attempts, and one may have been sent (ADR 10)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from clients.alipayhk.wire import errors
from service.credentials.callers import ANYBODY, Caller
from service.ledger import Ledger
from service.ledger.memory import MemoryLedger
from service.ledger.off import OffLedger
from tests.delivery.world import FAILS, OK, SLOW, STALE, UNREACHABLE, Make, Step, World, refusing

SAME = "same_request_id"
FORGETFUL = {"memory": MemoryLedger, "off": OffLedger}


async def both(world: World, left_s: float = 10.0, caller: Caller = ANYBODY) -> list[tuple[str, str, str]]:
    """Make a call that is not retried, and the same call as a retry."""
    order = world.sync("b")
    reported = [await world.deliver(order, left_s, caller, retried=retried) for retried in (False, True)]
    return [one.short for one in reported]


def not_sent_and_unknown(reason: str) -> list[tuple[str, str, str]]:
    """Return the two verdicts if the ledger was not read for the id."""
    return [(reason, "not_sent", SAME), (reason, "unknown", SAME)]


# -- refused before the ledger was read


async def test_too_little_time(world: World) -> None:
    assert await both(world, left_s=0.05) == not_sent_and_unknown("DEADLINE_TOO_SHORT")


async def test_shutting_down(world: World) -> None:
    world.delivery.close()
    assert await both(world) == not_sent_and_unknown("SHUTTING_DOWN")


async def test_overloaded(make: Make) -> None:
    world = make(max_in_flight=1)
    world.client.script("a", SLOW)
    first = world.start(world.sync("a"))
    await asyncio.sleep(0.1)
    assert await both(world) == not_sent_and_unknown("OVERLOADED")
    assert (await first).short == OK


async def test_caller_over_its_quota(world: World) -> None:
    caller = Caller("loyalty", frozenset(), 1)
    world.client.script("a", SLOW)
    first = world.start(world.sync("a"), caller=caller)
    await asyncio.sleep(0.1)
    assert await both(world, caller=caller) == not_sent_and_unknown("CALLER_QUOTA_EXCEEDED")
    assert (await first).short == OK


async def test_unreadable_ledger(world: World) -> None:
    world.faulty.broken = True
    assert await both(world) == not_sent_and_unknown("LEDGER_UNAVAILABLE")


async def test_no_capacity_in_time(make: Make) -> None:
    world = make(max_in_flight=9)
    world.delivery._senders["SyncLinkage"].pace.limiter._limit = 1.0
    world.client.script("a", Step(after_s=3.0))
    first = world.start(world.sync("a"))
    await asyncio.sleep(0.1)
    # A call that waits for capacity has read the ledger. If that fails, nothing is proven.
    assert await both(world, left_s=0.5) == [("OVERLOADED", "not_sent", SAME)] * 2
    world.faulty.fault("look", FAILS, FAILS)
    assert await both(world, left_s=0.5) == not_sent_and_unknown("LEDGER_UNAVAILABLE")
    assert (await first).short == OK


async def test_id_in_flight_with_other_content(world: World) -> None:
    """An earlier request with this content may be in doubt: the ledger was not read for it."""
    world.client.script("b", SLOW)
    first = world.start(world.sync("b", content="unbind"))
    await asyncio.sleep(0.1)
    reason, retry = "REQUEST_ID_REUSED", "new_request_id"
    assert await both(world) == [(reason, "not_sent", retry), (reason, "unknown", retry)]
    assert (await first).short == OK


async def test_calls_that_share_a_flight_get_verdicts_of_their_own(make: Make) -> None:
    world = make(max_in_flight=9, ledger=MemoryLedger())
    world.delivery._senders["SyncLinkage"].pace.limiter._limit = 1.0
    world.client.script("a", Step(after_s=3.0))
    first = world.start(world.sync("a"))
    await asyncio.sleep(0.1)
    calls = [world.start(world.sync("b"), left_s=4.0, retried=retried) for retried in (False, True)]
    await asyncio.sleep(0.1)
    world.delivery.close()
    assert [(await call).short for call in calls] == not_sent_and_unknown("SHUTTING_DOWN")
    assert (await first).short == OK


# -- refused after the ledger was read


async def test_request_unknown_to_the_ledger_was_not_sent(world: World) -> None:
    world.client.otherwise = lambda _: UNREACHABLE
    assert await both(world, left_s=0.25) == [("UPSTREAM_UNREACHABLE", "not_sent", SAME)] * 2


async def test_open_breaker_reads_the_ledger_first(world: World) -> None:
    world.client.otherwise = lambda _: UNREACHABLE
    await asyncio.gather(*(world.start(world.sync(f"ill {number}"), 0.25) for number in range(20)))
    assert await both(world) == [("CIRCUIT_OPEN", "not_sent", SAME)] * 2
    world.faulty.broken = True
    assert await both(world) == not_sent_and_unknown("LEDGER_UNAVAILABLE")


async def test_queued_request_has_read_the_ledger(world: World) -> None:
    world.client.script("a", Step(after_s=3.0))
    first = world.start(world.sync("a", user="u"))
    await asyncio.sleep(0.1)
    reported = await world.deliver(world.sync("b", user="u", biz_time=2), left_s=0.5, retried=True)
    assert reported.short == ("LINKAGE_BUSY", "not_sent", SAME)
    assert (await first).short == OK


async def test_stale_and_reused_come_from_the_ledger(world: World) -> None:
    assert (await world.deliver(world.sync("new", user="u", biz_time=2))).short == OK
    stale = await world.deliver(world.sync("old", user="u"), retried=True)
    assert stale.short == STALE
    reused = await world.deliver(world.sync("new", user="u"), retried=True)
    assert reused.short == ("REQUEST_ID_REUSED", "not_sent", "new_request_id")


async def test_known_result_is_replayed_to_a_retry(world: World) -> None:
    world.client.script("no", refusing("NO_TABLE_KNOWS"))
    for name in ("yes", "no"):
        first = await world.deliver(world.sync(name))
        assert (await world.deliver(world.sync(name), retried=True)).short == first.short


# -- ledgers that forget at a crash


@pytest.mark.parametrize("level", FORGETFUL.values(), ids=FORGETFUL.keys())
async def test_ledger_that_forgets_at_a_crash_proves_nothing(make: Make, level: type[Ledger]) -> None:
    world = make(ledger=level())
    world.client.otherwise = lambda _: UNREACHABLE
    assert await both(world, left_s=0.25) == not_sent_and_unknown("UPSTREAM_UNREACHABLE")
    # The biz_time was further ahead before, but perhaps not by another gateway's clock.
    future = await world.deliver(world.sync("far", biz_time=10**13), retried=True)
    assert future.short == ("BIZ_TIME_IN_FUTURE", "unknown", "new_request_id")


async def test_retry_stays_in_doubt_if_the_ledger_forgets_at_a_crash(make: Make) -> None:
    """The hidden attempt may be the one that took effect."""
    world = make(ledger=MemoryLedger())
    world.client.otherwise = lambda _: refusing("NO_TABLE_KNOWS")
    for _ in range(2):
        reported = await world.deliver(world.sync("a"), retried=True)
        assert reported.short == ("WALLET_REJECTED", "unknown", "operator")
    assert await world.state("a") == "in_doubt"
    assert (await world.deliver(world.sync("a"))).outcome == "unknown"


async def test_ledger_that_may_be_bypassed_proves_nothing(make: Make) -> None:
    world = make(without_ledger=True)
    world.client.script("lost", Step(errors.ConnectionLost("x"), applies=True))
    world.faulty.broken = True
    assert (await world.deliver(world.sync("lost", user="u", biz_time=1), left_s=0.2)).outcome == "unknown"
    world.faulty.broken = False
    assert (await world.deliver(world.sync("newer", user="u", biz_time=2))).short == OK
    stale = await world.deliver(world.sync("lost", user="u", biz_time=1), retried=True)
    assert stale.short == ("STALE_BIZ_TIME", "unknown", "never")
    world.client.script("no", refusing("NO_TABLE_KNOWS"))
    refused = await world.deliver(world.sync("no"))
    assert refused.short == ("WALLET_REJECTED", "unknown", "operator")
    assert await world.state("no") == "in_doubt"


async def test_flight_of_a_retried_call_stays_in_doubt_when_another_call_joins(make: Make) -> None:
    world = make(ledger=MemoryLedger())
    world.client.script("a", replace(refusing("NO_TABLE_KNOWS"), after_s=1.0))
    retried = world.start(world.sync("a"), retried=True)
    await asyncio.sleep(0.1)
    joined = world.start(world.sync("a"))
    assert [(await call).reason for call in (retried, joined)] == ["WALLET_REJECTED"] * 2
    assert await world.state("a") == "in_doubt"


@pytest.mark.parametrize("level", FORGETFUL.values(), ids=FORGETFUL.keys())
async def test_unknown_code_may_mean_already_done(make: Make, level: type[Ledger]) -> None:
    world = make(ledger=level())
    world.client.otherwise = lambda _: refusing("NO_TABLE_KNOWS")
    first = await world.deliver(world.sync("a"))
    assert first.short == ("WALLET_REJECTED", "rejected", "new_request_id")
    reported = await world.deliver(world.sync("b"), retried=True)
    assert reported.short == ("WALLET_REJECTED", "unknown", "operator")
    world.client.otherwise = lambda _: refusing("PROCESS_FAIL")
    reported = await world.deliver(world.sync("c"), retried=True)
    assert reported.short == ("WALLET_REJECTED", "rejected", "never")
