"""One request per linkage in flight, in order of biz_time; stale requests, ties, and other gateways."""

from __future__ import annotations

import asyncio

import pytest

from service.ledger import Claim, Granted
from tests.delivery.world import (
    HANG,
    IN_PROGRESS,
    LOST,
    OK,
    SLOW,
    STALE,
    TIMEOUT,
    Fault,
    FaultyLedger,
    Make,
    S,
    ScriptedClient,
    World,
    refusing,
    wall_s,
)
from tests.service.fakes import vault_of

TIE = ("BIZ_TIME_TIE", "not_sent", "new_request_id")
BUSY = ("LINKAGE_BUSY", "not_sent", "same_request_id")
DOUBTFUL_BUSY = ("LINKAGE_BUSY", "unknown", "same_request_id")


async def test_concurrent_requests_are_sent_in_order_of_biz_time(world: World) -> None:
    world.client.otherwise = lambda _: SLOW
    first = world.start(world.sync("first", user="u", biz_time=1))
    await asyncio.sleep(0.1)
    calls = [world.start(world.sync(f"at {time}", user="u", biz_time=time)) for time in (9, 5, 7)]
    reported = await asyncio.gather(first, *calls)
    assert {one.short for one in reported} == {OK}
    assert world.client.ids_seen() == ["first", "at 5", "at 7", "at 9"]
    assert world.client.at_once_max == 1


async def test_other_linkages_do_not_wait(world: World) -> None:
    world.client.otherwise = lambda _: SLOW
    reported = await asyncio.gather(*(world.start(world.sync(name, user=name)) for name in "abc"))
    assert {one.short for one in reported} == {OK}
    assert world.client.at_once_max == 3


async def test_older_request_becomes_stale_in_the_queue(world: World) -> None:
    world.client.script("newer", SLOW)
    newer = world.start(world.sync("newer", user="u", biz_time=2))
    await asyncio.sleep(0.5)
    older = await world.deliver(world.sync("older", user="u", biz_time=1))
    assert older.short == STALE
    assert (await newer).short == OK
    assert world.client.ids_seen() == ["newer"]
    assert await world.state("older") == "none"


async def test_older_request_is_sent_if_the_newer_one_was_not_applied(world: World) -> None:
    for request_id, step in (("refused", refusing("USER_NOT_EXIST")), ("lost", LOST)):
        world.client.script(request_id, step, refusing("USER_NOT_EXIST"))
        newer = world.start(world.sync(request_id, user=request_id, biz_time=2))
        older = await world.deliver(world.sync(f"older {request_id}", user=request_id, biz_time=1))
        assert (await newer).reason == "WALLET_REJECTED"
        assert older.short == OK


async def test_same_biz_time_with_other_content_is_a_tie(world: World) -> None:
    assert (await world.deliver(world.sync("a", user="u"))).short == OK
    assert (await world.deliver(world.sync("b", user="u", content="unbind"))).short == TIE
    same = await world.deliver(world.sync("c", user="u"))
    assert same.short == OK
    assert not same.response.replayed
    assert world.client.ids_seen() == ["a", "c"]


async def test_concurrent_ties_are_refused_in_order(world: World) -> None:
    world.client.otherwise = lambda _: SLOW
    calls = [world.start(world.sync(content, user="u", content=content)) for content in ("x", "y", "x2")]
    assert [(await call).short for call in calls] == [OK, TIE, TIE]


async def test_known_id_is_never_stale(world: World) -> None:
    old = world.sync("old", user="u", biz_time=1)
    refused_ = world.sync("refused", user="u", biz_time=1, content="x")
    in_doubt = world.sync("in doubt", user="u", biz_time=1, content="y")
    world.client.script("refused", refusing("USER_NOT_EXIST"))
    world.client.script("in doubt", HANG)
    assert (await world.deliver(in_doubt, left_s=1.0)).short == TIMEOUT
    await asyncio.sleep(10.0)
    assert (await world.deliver(refused_)).reason == "WALLET_REJECTED"
    assert (await world.deliver(old)).short == OK
    assert (await world.deliver(world.sync("new", user="u", biz_time=2))).short == OK
    again = await world.deliver(old)
    assert (again.short, again.response.replayed) == (OK, True)
    assert (await world.deliver(refused_)).facts["replayed"] == "true"
    again = await world.deliver(in_doubt)
    assert (again.short, again.response.replayed) == (OK, False)


async def test_replay_does_not_wait_for_a_busy_linkage(world: World) -> None:
    old = world.sync("old", user="u", biz_time=1)
    await world.deliver(old)
    world.client.script("new", SLOW)
    new = world.start(world.sync("new", user="u", biz_time=2))
    await asyncio.sleep(0.1)
    again = await world.deliver(old)
    assert again.response.replayed
    assert again.took_s < 0.1
    reused = await world.deliver(world.sync("old", user="u", biz_time=3))
    assert (reused.reason, reused.took_s < 0.1) == ("REQUEST_ID_REUSED", True)
    assert not new.done()


async def test_queued_request_waits_no_longer_than_its_deadline(world: World) -> None:
    world.client.script("a", HANG)
    first = world.start(world.sync("a", user="u"), left_s=3.0)
    await asyncio.sleep(0.1)
    reported = await world.deliver(world.sync("b", user="u", biz_time=2), left_s=2.0)
    assert reported.short == BUSY
    assert reported.took_s == pytest.approx(2.0, abs=0.05)
    assert (await first).short == TIMEOUT
    await asyncio.sleep(5.0)
    assert world.client.ids_seen() == ["a"]
    assert await world.state("b") == "none"


async def test_queued_request_in_doubt_is_not_reported_as_not_sent(world: World) -> None:
    world.client.script("a", HANG)
    assert (await world.deliver(world.sync("a", user="u"), left_s=1.0)).short == TIMEOUT
    await asyncio.sleep(10.0)
    world.client.script("b", HANG)
    other = world.start(world.sync("b", user="u", biz_time=2), left_s=3.0)
    await asyncio.sleep(0.1)
    assert (await world.deliver(world.sync("a", user="u"), left_s=1.0)).short == DOUBTFUL_BUSY
    await other


async def test_request_in_doubt_does_not_block_its_linkage(world: World) -> None:
    world.client.script("a", HANG)
    assert (await world.deliver(world.sync("a", user="u"), left_s=1.0)).short == TIMEOUT
    await asyncio.sleep(3.5)
    assert await world.state("a") == "in_doubt"
    reported = await world.deliver(world.sync("b", user="u", biz_time=2))
    assert reported.short == OK
    assert reported.took_s < 0.1


# -- two gateways on one ledger


class Two:
    """Two gateways that share a ledger and an AlipayHK."""

    def __init__(self, make: Make) -> None:
        self.client, self.ledger = ScriptedClient(), FaultyLedger()
        self.here, self.there = (make(client=self.client, ledger=self.ledger) for _ in range(2))


@pytest.fixture
def two(make: Make) -> Two:
    return Two(make)


@pytest.mark.parametrize("api", ["sync", "bind"])
async def test_same_id_in_two_gateways_is_sent_once_and_answered_twice(two: Two, api: str) -> None:
    two.client.script("a", SLOW)
    order, same = getattr(two.here, api)("a"), getattr(two.there, api)("a")
    reported = await asyncio.gather(two.here.start(order), two.there.start(same))
    assert [one.short for one in reported] == [OK, OK]
    assert sorted(one.response.replayed for one in reported) == [False, True]
    assert two.client.ids_seen() == ["a"]


@pytest.mark.parametrize("left_s", [0.9 + number / 50 for number in range(20)])
async def test_deadline_while_another_gateway_sends_reports_request_in_progress(
    two: Two, left_s: float
) -> None:
    two.client.script("a", HANG)
    two.ledger.faults["claim"].extend([Fault(), *[Fault(before_s=0.04)] * 20])
    first = two.here.start(two.here.sync("a"), left_s=3.0)
    await asyncio.sleep(0.1)
    reported = await two.there.deliver(two.there.sync("a"), left_s=left_s)
    assert reported.short == IN_PROGRESS
    assert reported.took_s < left_s + 0.3
    assert (await first).short == TIMEOUT
    assert two.client.ids_seen() == ["a"]


async def test_request_waits_for_its_linkage_in_another_gateway(two: Two) -> None:
    two.client.script("a", SLOW)
    first = two.here.start(two.here.sync("a", user="u"))
    await asyncio.sleep(0.1)
    reported = await two.there.deliver(two.there.sync("b", user="u", biz_time=2))
    assert reported.short == OK
    assert reported.took_s > 0.9
    assert two.client.at_once_max == 1
    assert (await first).short == OK


async def test_deadline_while_another_gateway_uses_the_linkage_reports_linkage_busy(two: Two) -> None:
    two.client.script("a", HANG)
    first = two.here.start(two.here.sync("a", user="u"), left_s=3.0)
    await asyncio.sleep(0.1)
    assert (await two.there.deliver(two.there.sync("b", user="u", biz_time=2), left_s=1.0)).short == BUSY
    await first
    await asyncio.sleep(10.0)
    assert two.client.ids_seen() == ["a"]


async def test_request_in_doubt_is_not_reported_as_not_sent_while_its_linkage_is_busy_elsewhere(
    two: Two,
) -> None:
    two.client.script("a", HANG)
    assert (await two.here.deliver(two.here.sync("a", user="u"), left_s=1.0)).short == TIMEOUT
    await asyncio.sleep(10.0)
    two.client.script("b", HANG)
    other = two.here.start(two.here.sync("b", user="u", biz_time=2), left_s=3.0)
    await asyncio.sleep(0.1)
    reported = await two.there.deliver(two.there.sync("a", user="u"), left_s=1.0)
    assert reported.short == DOUBTFUL_BUSY
    await other


async def test_request_of_a_dead_gateway_is_taken_over_after_its_lease(world: World) -> None:
    claimed = World(client=world.client, ledger=world.ledger)
    order = world.sync("a")
    client, world.client.otherwise = world.client, lambda _: HANG
    dying = claimed.start(order, left_s=20.0)
    await asyncio.sleep(0.5)
    (flight,) = claimed.delivery._flights.values()
    claimed.faulty.fault("record", *[Fault(fails=True)] * 9)
    flight.task.cancel()  # like a kill: the row stays as it was
    client.otherwise = lambda _: S
    await asyncio.sleep(0)
    reported = await world.deliver(order)
    assert reported.short == OK
    assert 4.0 < reported.took_s < 5.1
    assert client.ids_seen() == ["a", "a"]
    await dying


async def test_bind_account_of_a_dead_gateway_is_not_resent(world: World) -> None:
    order = world.bind("a")
    claim = Claim(order.key, "", vault_of().fingerprint(order.content), lease_ms=5_000)
    assert isinstance(await world.ledger.claim(claim, round(wall_s() * 1000)), Granted)
    reported = await world.deliver(order, left_s=2.0)
    assert reported.short == IN_PROGRESS
    reported = await world.deliver(order)
    assert reported.short == ("OUTCOME_IN_DOUBT", "unknown", "operator")
    assert not world.client.attempts
