"""Breaker, budget and limit in use: calls during an outage, a slow AlipayHK and a rate limit."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Final

import pytest

from clients.alipayhk.wire import errors
from service.delivery.pacing import Limiter
from tests.delivery.world import (
    BAD_GATEWAY,
    HANG,
    HANG_CONNECTING,
    LIMITED,
    LOST,
    OK,
    SLOW,
    UNREACHABLE,
    UNSIGNED,
    Make,
    Reported,
    S,
    Step,
    U,
    World,
    failing,
    refusing,
)

CIRCUIT_OPEN = ("CIRCUIT_OPEN", "not_sent", "same_request_id")


def limiter(world: World, api: str = "SyncLinkage") -> Limiter:
    return world.delivery._senders[api].pace.limiter


def is_open(world: World, api: str = "SyncLinkage") -> bool:
    return world.delivery._senders[api].pace.is_open


async def many(world: World, count: int, *, prefix: str = "ill", left_s: float = 0.25) -> list[Reported]:
    """Make concurrent calls that have time for one attempt."""
    calls = [world.start(world.sync(f"{prefix} {number}"), left_s) for number in range(count)]
    return list(await asyncio.gather(*calls))


async def opened(world: World, step: Step = UNREACHABLE) -> World:
    """Open the breaker."""
    world.client.otherwise = lambda _: step
    await many(world, 20)
    assert is_open(world)
    return world


# -- the breaker


FAILING: Final = {
    "unreachable": UNREACHABLE,
    "bad certificate": failing(errors.TlsInvalid("x")),
    "reset": LOST,
    "502": BAD_GATEWAY,
}


@pytest.mark.parametrize("step", FAILING.values(), ids=FAILING.keys())
async def test_twenty_failures_open_the_breaker_and_nothing_is_sent_or_written(
    world: World, step: Step
) -> None:
    world.client.otherwise = lambda _: step
    await many(world, 19)
    assert not is_open(world)
    await many(world, 1, prefix="last")
    attempts, done = len(world.client.attempts), len(world.faulty.done)
    reported = await many(world, 50, prefix="refused", left_s=10.0)
    assert {one.short for one in reported} == {CIRCUIT_OPEN}
    assert {one.code for one in reported} == {"UNAVAILABLE"}
    assert max(one.took_s for one in reported) < 0.01
    assert len(world.client.attempts) == attempts
    assert set(world.faulty.done[done:]) <= {"look"}
    assert await world.state("refused 0") == "none"


async def test_timeouts_open_the_breaker(world: World) -> None:
    world.client.otherwise = lambda _: HANG
    await many(world, 20, left_s=5.0)
    assert is_open(world)


WELL: Final = {
    "a refusal": refusing("USER_NOT_EXIST"),
    "a refusal of this gateway": refusing("INVALID_CLIENT"),
    "U": U,
    "a bad signature": failing(errors.SignatureInvalid("x")),
    "nonsense": failing(errors.Malformed("x")),
    "truncated": failing(errors.Truncated("x")),
    "HTTP 403": failing(errors.Unsigned("x", http_status=403)),
    "unsigned": UNSIGNED,
    "a rate limit": LIMITED,
}


@pytest.mark.parametrize("step", WELL.values(), ids=WELL.keys())
async def test_rejections_of_single_requests_do_not_open_the_breaker(world: World, step: Step) -> None:
    world.client.otherwise = lambda _: step
    await many(world, 100)
    assert not is_open(world)


async def test_resends_of_one_request_do_not_open_the_breaker(make: Make) -> None:
    world = make(attempts_max=100)
    world.client.otherwise = lambda _: UNREACHABLE
    await asyncio.gather(*(world.start(world.sync(f"a{number}"), 30.0) for number in range(5)))
    assert len(world.client.attempts) > 40
    assert not is_open(world)


async def test_each_api_has_its_own_breaker(world: World) -> None:
    await opened(world)
    world.client.otherwise = lambda _: S
    assert (await world.deliver(world.bind("b"))).short == OK


async def test_finished_requests_are_replayed_while_the_breaker_is_open(world: World) -> None:
    world.client.script("doubt", HANG)
    world.client.script("no", refusing("PROCESS_FAIL"))
    for name in ("yes", "no", "doubt"):
        await world.deliver(world.sync(name), left_s=2.0)
    await asyncio.sleep(10.0)
    await opened(world)
    attempts = len(world.client.attempts)
    yes, no, doubt, reused = [
        await world.deliver(order)
        for order in (*map(world.sync, ("yes", "no", "doubt")), world.sync("yes", content="x"))
    ]
    assert (yes.short, yes.response.replayed) == (OK, True)
    assert (no.short, no.facts["replayed"]) == (("WALLET_REJECTED", "rejected", "never"), "true")
    assert doubt.short == ("CIRCUIT_OPEN", "unknown", "same_request_id")
    assert reused.reason == "REQUEST_ID_REUSED"
    assert len(world.client.attempts) == attempts


async def test_successful_probe_closes_the_breaker(world: World) -> None:
    await opened(world)
    await asyncio.sleep(5.0)
    world.client.otherwise = lambda _: SLOW
    reported = await many(world, 50, prefix="later", left_s=10.0)
    assert Counter(one.short for one in reported) == {OK: 1, CIRCUIT_OPEN: 49}
    assert not is_open(world)
    assert {one.short for one in await many(world, 50, prefix="well", left_s=10.0)} == {OK}


async def test_rejected_probe_closes_the_breaker(world: World) -> None:
    await opened(world)
    await asyncio.sleep(5.0)
    world.client.otherwise = lambda _: refusing("USER_NOT_EXIST")
    assert (await world.deliver(world.sync("probe"))).reason == "WALLET_REJECTED"
    assert not is_open(world)


async def test_failed_probe_keeps_the_breaker_open_and_delays_the_next(world: World) -> None:
    await opened(world)
    attempts = len(world.client.attempts)
    for round_ in range(1, 4):
        await asyncio.sleep(5.0)
        reported = await many(world, 20, prefix=f"round {round_}", left_s=10.0)
        assert Counter(one.reason for one in reported) == {"UPSTREAM_UNREACHABLE": 1, "CIRCUIT_OPEN": 19}
        assert len(world.client.attempts) == attempts + round_
        await asyncio.sleep(4.9)
        assert (await world.deliver(world.sync(f"early {round_}"))).short == CIRCUIT_OPEN
        assert is_open(world)


@pytest.mark.parametrize("sent", [True, False])
async def test_probe_of_a_disconnected_caller_allows_another(world: World, sent: bool) -> None:
    await opened(world)
    await asyncio.sleep(5.0)
    world.client.script("gone", HANG if sent else HANG_CONNECTING)
    gone = world.start(world.sync("gone"))
    await asyncio.sleep(0.1)
    assert (await world.deliver(world.sync("meanwhile"))).short == CIRCUIT_OPEN
    gone.cancel()
    await asyncio.sleep(10.0)
    world.client.otherwise = lambda _: S
    assert (await world.deliver(world.sync("next"))).short == OK
    assert not is_open(world)


async def test_ledger_failure_during_a_probe_allows_another(world: World) -> None:
    await opened(world)
    await asyncio.sleep(5.0)
    world.client.otherwise = lambda _: S
    world.faulty.broken = True
    assert (await world.deliver(world.sync("a"))).reason == "LEDGER_UNAVAILABLE"
    world.faulty.broken = False
    assert (await world.deliver(world.sync("a"))).short == OK


async def test_queued_request_is_refused_if_the_breaker_opens(make: Make) -> None:
    world = make(max_in_flight=100)
    limiter(world)._limit = 20.0
    world.client.otherwise = lambda _: Step(UNREACHABLE.error, sent=False, before_s=1.0, applies=False)
    reported = await many(world, 60, left_s=10.0)
    assert is_open(world)
    assert len(world.client.attempts) == 20
    assert Counter(one.reason for one in reported) == {"UPSTREAM_UNREACHABLE": 20, "CIRCUIT_OPEN": 40}


async def test_nothing_is_resent_while_the_breaker_is_open(world: World) -> None:
    world.client.otherwise = lambda _: LOST
    calls = [world.start(world.sync(f"{number}")) for number in range(10)]
    await asyncio.sleep(0.1)
    assert len(world.client.attempts) == 10
    await many(world, 10)
    assert is_open(world)
    attempts = len(world.client.attempts)
    reported = [await call for call in calls]
    assert {one.short for one in reported} == {("CONNECTION_LOST", "unknown", "same_request_id")}
    assert len(world.client.attempts) == attempts
    assert await world.state("0") == "in_doubt"


async def test_probe_that_waits_for_another_gateway_allows_another(make: Make) -> None:
    world = make()
    other = make(ledger=world.ledger)
    await opened(world)
    await asyncio.sleep(5.0)
    other.client.otherwise = lambda _: HANG
    elsewhere = other.start(other.sync("elsewhere", user="u"), left_s=4.5)
    await asyncio.sleep(0.1)
    world.client.otherwise = lambda _: S
    waiting = world.start(world.sync("waiting", user="u", biz_time=2))
    await asyncio.sleep(0.1)
    assert (await world.deliver(world.sync("probe"))).short == OK
    assert not is_open(world)
    assert (await waiting).short == OK
    await elsewhere


# -- the budget


@pytest.mark.parametrize("step", [UNREACHABLE, LOST, BAD_GATEWAY], ids=["unreachable", "reset", "502"])
@pytest.mark.parametrize("rate", [1, 5, 50])
async def test_retries_do_not_amplify_an_outage_of_a_minute(make: Make, step: Step, rate: int) -> None:
    world = make(chance=lambda: 0.5)
    world.client.otherwise = lambda _: step
    calls = []
    began = time.monotonic()
    for number in range(60 * rate):
        calls.append(world.start(world.sync(f"{number}"), 5.0))
        await asyncio.sleep(1 / rate)
    reported = await asyncio.gather(*calls)
    accepted = sum(one.reason != "CIRCUIT_OPEN" for one in reported)
    passed_s = time.monotonic() - began
    assert len(world.client.attempts) <= 1.2 * accepted + 10 * (passed_s + 1)
    if rate == 50:
        assert len(world.client.attempts) < 0.2 * len(reported)
    world.client.otherwise = lambda _: S
    await asyncio.sleep(5.0)
    assert (await world.deliver(world.sync("probe"))).short == OK
    assert {one.short for one in await many(world, 50, prefix="after")} == {OK}


@pytest.mark.parametrize("rate", [6, 15])
async def test_workers_together_retry_as_little_as_one(make: Make, rate: int) -> None:
    first = make(workers=3, chance=lambda: 0.5)
    others = [make(workers=3, chance=lambda: 0.5, ledger=first.ledger, client=first.client) for _ in "ab"]
    first.client.otherwise = lambda _: UNREACHABLE
    calls = []
    began = time.monotonic()
    for number in range(10 * rate):
        world = (first, *others)[number % 3]
        calls.append(world.start(world.sync(f"{number}"), 5.0))
        await asyncio.sleep(1 / rate)
    accepted = sum(one.reason != "CIRCUIT_OPEN" for one in await asyncio.gather(*calls))
    assert len(first.client.attempts) <= 1.2 * accepted + 10 * (time.monotonic() - began + 1)
    assert len(first.client.attempts) < 3 * accepted


async def test_partial_outage_keeps_the_breaker_closed_and_the_budget_limits_retries(make: Make) -> None:
    world = make(chance=lambda: 0.1)
    ends = [UNREACHABLE, UNREACHABLE, UNREACHABLE, S]
    world.client.otherwise = lambda _: ends[len(world.client.attempts) % 4]
    calls = []
    for number in range(3000):
        calls.append(world.start(world.sync(f"{number}"), 5.0))
        await asyncio.sleep(0.01)
    await asyncio.gather(*calls)
    assert not is_open(world)
    assert 3300 < len(world.client.attempts) <= 1.2 * 3000 + 10 * (35 + 1)


# -- the limit


async def test_timeouts_lower_the_limit_and_responses_raise_it(make: Make) -> None:
    world = make(max_in_flight=100)
    world.client.otherwise = lambda _: HANG
    calls = [world.start(world.sync(f"{number}"), 5.0) for number in range(19)]
    for extra in range(5):
        await asyncio.sleep(1.5)
        world.client.otherwise = lambda _: Step(HANG.error, after_s=5.0)
        calls.append(world.start(world.sync(f"later {extra}"), 5.0))
    await asyncio.gather(*calls)
    fallen = limiter(world).limit
    assert fallen < 60
    world.client.otherwise = lambda _: S
    await asyncio.sleep(6.0)
    for round_ in range(60):
        await many(world, 50, prefix=f"well {round_}", left_s=5.0)
    assert limiter(world).limit > fallen


async def test_rate_limit_lowers_the_limit(make: Make) -> None:
    world = make(max_in_flight=100)
    world.client.otherwise = lambda _: LIMITED
    for second in range(10):
        reported = await many(world, 20, prefix=str(second))
        assert {one.reason for one in reported} == {"WALLET_RATE_LIMITED"}
        await asyncio.sleep(1.0)
    assert limiter(world).limit == 4
    world.client.otherwise = lambda _: Step(after_s=0.1)
    world.client.at_once_max = 0
    assert {one.short for one in await many(world, 30, prefix="after", left_s=10.0)} == {OK}
    assert world.client.at_once_max <= 8
    assert not is_open(world)


async def test_requests_wait_for_capacity_in_order_of_arrival(make: Make) -> None:
    world = make(max_in_flight=50)
    limiter(world)._limit = 2.0
    world.client.otherwise = lambda _: Step(after_s=0.5)
    calls = [world.start(world.sync(f"{number:02}")) for number in range(8)]
    assert {(await call).short for call in calls} == {OK}
    attempts = [request_id for request_id, _ in world.client.attempts]
    assert attempts == sorted(attempts)


async def test_finished_request_does_not_wait_for_capacity(make: Make) -> None:
    world = make(max_in_flight=50)
    world.client.script("doubtful", LOST)
    assert (await world.deliver(world.bind("doubtful"))).outcome == "unknown"
    for api, known in (("SyncLinkage", world.sync("known")), ("BindAccount", world.bind("known"))):
        assert (await world.deliver(known)).short == OK
        limiter(world, api)._limit = 1.0
    world.client.otherwise = lambda _: Step(after_s=3.0)
    holding = [world.start(world.sync("a")), world.start(world.bind("b"))]
    await asyncio.sleep(0.1)
    for order in (world.sync("known"), world.bind("known"), world.bind("doubtful")):
        reported = await world.deliver(order)
        assert reported.took_s < 0.01
        assert reported.short in {OK, ("OUTCOME_IN_DOUBT", "unknown", "operator")}
    assert {(await call).short for call in holding} == {OK}


async def test_request_that_waits_for_capacity_too_long_is_not_sent(make: Make) -> None:
    world = make(max_in_flight=50)
    limiter(world)._limit = 1.0
    world.client.otherwise = lambda _: Step(after_s=3.0)
    first = world.start(world.sync("a"))
    await asyncio.sleep(0.1)
    reported = await world.deliver(world.sync("b"), left_s=1.0)
    assert reported.short == ("OVERLOADED", "not_sent", "same_request_id")
    assert (await first).short == OK
    assert world.client.ids_seen() == ["a"]
    assert await world.state("b") == "none"


async def test_cancelled_request_takes_no_capacity(make: Make) -> None:
    world = make(max_in_flight=50)
    limiter(world)._limit = 1.0
    world.client.otherwise = lambda _: SLOW
    calls = [world.start(world.sync(f"{number}")) for number in range(6)]
    await asyncio.sleep(0.5)
    for call in calls[1:4]:
        call.cancel()
    reported = await asyncio.gather(*calls, return_exceptions=True)
    assert [one.short for one in reported if isinstance(one, Reported)] == [OK, OK, OK]
    assert world.client.ids_seen() == ["0", "4", "5"]
