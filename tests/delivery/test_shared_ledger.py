"""Two gateways with one ledger and one AlipayHK: one waits for the other, or overtakes it."""

from __future__ import annotations

import asyncio

import pytest

from service.delivery.outbound_request import OutboundRequest
from service.ledger import Ending, State
from tests.delivery.world import (
    FAILS,
    HANG_CONNECTING,
    LEASE_S,
    OK,
    STALE,
    UNAVAILABLE,
    UNREACHABLE,
    UNREACHABLE_TOLD,
    Fault,
    FaultyLedger,
    Make,
    S,
    Step,
    World,
    refusing,
    wall_s,
)

BUSY = ("LINKAGE_BUSY", "not_sent", "same_request_id")
REJECTED = ("WALLET_REJECTED", "rejected", "new_request_id")


@pytest.fixture
def pair(make: Make) -> tuple[World, World]:
    """Return two gateways with one ledger and one AlipayHK."""
    ledger = FaultyLedger()
    one = make(ledger=ledger)
    return one, make(ledger=ledger, client=one.client)


async def resolve(world: World, order: OutboundRequest) -> None:
    """Record an operator's decision that the request was not applied."""
    now_ms, no = round(wall_s() * 1000), Ending(State.REJECTED)
    assert await world.ledger.resolve(order.key, no, who="ann", why="asked", now_ms=now_ms)


async def test_claim_that_was_delayed_for_a_minute_leaves_a_later_lease_alone(
    pair: tuple[World, World],
) -> None:
    one, other = pair
    one.faulty.fault("claim", Fault(before_s=60.0))
    delayed = one.start(one.sync("a", user="u"))
    await asyncio.sleep(59.5)
    other.client.script("b", Step(after_s=1.0))
    started_s = wall_s()
    sending = other.start(other.sync("b", user="u", biz_time=2))
    await asyncio.sleep(0.75)
    row = await other.row("b")
    assert row is not None
    assert row.lease_until_ms == round((started_s + LEASE_S) * 1000)
    assert (await sending).short == OK
    await delayed


@pytest.mark.parametrize("api", ["sync", "bind"])
async def test_claim_that_waits_while_the_clock_is_set_back_takes_over_no_attempt(
    pair: tuple[World, World], api: str
) -> None:
    one, other = pair
    one.client.script("a", Step(after_s=2.0))
    other.wall_step_s = 3600.0
    other.faulty.fault("look", Fault())
    other.faulty.fault("claim", Fault(before_s=0.5))
    delayed = other.start(getattr(other, api)("a"))
    await asyncio.sleep(0.25)
    other.wall_step_s = 0.0
    sending = one.start(getattr(one, api)("a"))
    assert [(await call).short for call in (sending, delayed)] == [OK, OK]
    assert len(one.client.attempts) == 1


async def test_lease_that_was_asked_for_before_the_clock_was_set_back_is_asked_for_again(
    pair: tuple[World, World],
) -> None:
    one, _ = pair
    one.wall_step_s = 3600.0
    one.faulty.fault("claim", Fault(before_s=0.5))
    sending = one.start(one.sync("a"))
    await asyncio.sleep(0.25)
    one.wall_step_s = 0.0
    assert (await sending).short == OK
    assert [name for name in one.faulty.done if name != "look"] == ["claim", "extend", "record"]


# -- a result that a call waits for


@pytest.mark.parametrize("code", ["NO_TABLE_KNOWS", "PROCESS_FAIL"])
async def test_rejection_by_another_gateway_is_reported_alike(pair: tuple[World, World], code: str) -> None:
    one, other = pair
    one.client.script("a", Step(refusing(code).error, after_s=1.0, applies=False))
    first = one.start(one.sync("a"))
    await asyncio.sleep(0.1)
    waited = await other.deliver(other.sync("a"))
    assert (await first).outcome == "rejected"
    assert waited.short == (await first).short
    assert waited.facts["replayed"] == "true"
    assert (await other.deliver(other.sync("a"))).short == waited.short


async def test_operators_rejection_is_reported_to_a_waiting_call(pair: tuple[World, World]) -> None:
    one, other = pair
    one.faulty.fault("claim", Fault(loses=True))
    assert (await one.deliver(one.sync("a"))).short == UNAVAILABLE
    waiting = other.start(other.sync("a"))
    # The other gateway asks again after a quarter of a second.
    await asyncio.sleep(LEASE_S - 0.01)
    one.faulty.fault("claim", Fault(before_s=0.1))
    await asyncio.sleep(0.02)
    await resolve(one, one.sync("a"))
    reported = await waiting
    assert reported.short == REJECTED
    assert not {"http_status", "tracer_id"} & reported.facts.keys()


async def test_request_in_progress_elsewhere_is_not_reported_as_not_sent(pair: tuple[World, World]) -> None:
    one, other = pair
    one.client.script("a", Step(after_s=3.0))
    first = one.start(one.sync("a"))
    await asyncio.sleep(0.1)
    waiting = other.start(other.sync("a"))
    await asyncio.sleep(0.1)
    other.faulty.fault("claim", FAILS)
    assert (await waiting).short == ("LEDGER_UNAVAILABLE", "unknown", "same_request_id")
    assert (await first).short == OK


async def test_expired_lease_is_taken_over_without_a_wait(pair: tuple[World, World]) -> None:
    one, other = pair
    one.faulty.fault("claim", Fault(loses=True))
    assert (await one.deliver(one.sync("a"))).short == UNAVAILABLE
    await asyncio.sleep(LEASE_S - 0.1)
    reported = await other.deliver(other.sync("a"))
    assert reported.short == OK
    assert reported.took_s == pytest.approx(0.1, abs=0.03)


async def test_request_undone_by_another_gateway_was_not_sent(pair: tuple[World, World]) -> None:
    one, other = pair
    one.client.script("older", HANG_CONNECTING)
    older = one.start(one.sync("older", user="u", biz_time=1), left_s=1.0)
    await asyncio.sleep(0.1)
    waiting = other.start(other.sync("older", user="u", biz_time=1))
    assert (await older).outcome == "not_sent"
    assert (await one.deliver(one.sync("newer", user="u", biz_time=2))).short == OK
    assert (await waiting).short == STALE


# -- a lease that expires before the first byte


async def test_claim_overtaken_before_its_answer_is_not_sent(pair: tuple[World, World]) -> None:
    one, other = pair
    one.faulty.fault("claim", Fault(after_s=LEASE_S + 1.0))
    older = one.start(one.sync("older", user="u", biz_time=1), left_s=20.0)
    await asyncio.sleep(LEASE_S + 0.5)
    assert (await other.deliver(other.sync("newer", user="u", biz_time=2))).short == OK
    assert (await older).short == UNAVAILABLE
    assert one.client.ids_seen() == ["newer"]
    assert await one.state("older") == "none"
    reported = await one.deliver(one.sync("older", user="u", biz_time=1))
    assert reported.short == STALE


async def test_claim_resolved_by_an_operator_before_its_answer_is_not_sent(
    pair: tuple[World, World],
) -> None:
    one, _ = pair
    one.faulty.fault("claim", Fault(after_s=LEASE_S + 1.0))
    call = one.start(one.bind("a"), left_s=20.0)
    await asyncio.sleep(LEASE_S + 0.5)
    await resolve(one, one.bind("a"))
    assert (await call).short == UNAVAILABLE
    assert not one.client.seen
    assert await one.state("a") == "rejected"


async def test_slow_claim_gets_a_lease_for_the_whole_attempt(pair: tuple[World, World]) -> None:
    one, other = pair
    one.faulty.fault("claim", Fault(after_s=3.0))
    one.client.script("a", Step(after_s=3.5))
    first = one.start(one.sync("a", user="u", biz_time=1), left_s=20.0)
    await asyncio.sleep(LEASE_S + 0.5)
    second = other.start(other.sync("b", user="u", biz_time=2), left_s=20.0)
    assert [(await first).short, (await second).short] == [OK, OK]
    assert one.client.at_once_max == 1
    assert one.client.ids_seen() == ["a", "b"]


async def test_resend_with_a_slow_renewal_is_not_made(pair: tuple[World, World]) -> None:
    one, other = pair
    one.client.script("a", UNREACHABLE, S)
    one.faulty.fault("extend", Fault(after_s=LEASE_S + 1.0))
    first = one.start(one.sync("a", user="u", biz_time=1), left_s=20.0)
    await asyncio.sleep(LEASE_S + 0.5)
    assert (await other.deliver(other.sync("b", user="u", biz_time=2))).short == OK
    assert (await first).short == UNREACHABLE_TOLD
    assert one.client.ids_seen() == ["b"]


async def test_unsent_request_with_an_expired_lease_does_not_overtake_a_newer_one(
    pair: tuple[World, World],
) -> None:
    one, other = pair
    one.client.script("older", *(UNREACHABLE,) * 3, HANG_CONNECTING, S)
    one.faulty.fault("extend", *(Fault(),) * 3, FAILS)
    older = one.start(one.sync("older", user="u", biz_time=1), left_s=20.0)
    # Three backoffs, 4 s of connecting, and a backoff of 1.6 s, during which the lease of 5 s expires.
    await asyncio.sleep(0.2 + 0.4 + 0.8 + LEASE_S + 0.3)
    assert (await other.deliver(other.sync("newer", user="u", biz_time=2))).short == OK
    assert (await older).short == UNREACHABLE_TOLD
    assert one.client.ids_seen() == ["newer"]
    assert await one.state("older") == "none"


async def test_unsent_request_keeps_its_lease_through_a_long_backoff(pair: tuple[World, World]) -> None:
    one, other = pair
    one.client.script("older", *(UNREACHABLE,) * 3, HANG_CONNECTING, S)
    older = one.start(one.sync("older", user="u", biz_time=1), left_s=20.0)
    await asyncio.sleep(0.2 + 0.4 + 0.8 + LEASE_S + 0.3)
    newer = other.start(other.sync("newer", user="u", biz_time=2))
    assert [(await older).short, (await newer).short] == [OK, OK]
    assert one.client.ids_seen() == ["older", "newer"]


async def test_request_that_waited_here_and_for_another_gateway_gets_linkage_busy(
    pair: tuple[World, World],
) -> None:
    one, other = pair
    one.client.script("a", Step(after_s=3.0))
    first = one.start(one.sync("a", user="u", biz_time=1))
    await asyncio.sleep(0.1)
    lefts = (0.3, 0.35, 0.5, 0.9, 1.0)
    calls = [other.start(other.sync(f"b{left_s}", user="u", biz_time=2), left_s) for left_s in lefts]
    assert {(await call).short for call in calls} == {BUSY}
    assert (await first).short == OK
