"""A process that is stopped between its claim and the first byte, and continued after its lease expired."""

from __future__ import annotations

import pytest

from service.delivery.outbound_request import OutboundRequest
from service.ledger import Ending, State
from tests.delivery import virtual_time
from tests.delivery.world import LEASE_S, LOST, OK, UNAVAILABLE, UPSTREAM_TIMEOUT_S, S, Step, World, wall_s


async def stop() -> None:
    """Let the time of the lease pass without running any timer, as in a stopped process."""
    virtual_time.pass_at_once(LEASE_S)


STOPPED = Step(halt=stop)


def order_of(world: World, api: str) -> OutboundRequest:
    return world.sync("a") if api == "SyncLinkage" else world.bind("a")


@pytest.mark.parametrize("api", ["SyncLinkage", "BindAccount"])
async def test_request_whose_lease_expired_is_not_sent_and_its_claim_is_undone(
    world: World, api: str
) -> None:
    world.client.script("a", STOPPED)
    reported = await world.deliver(order_of(world, api), left_s=30.0)
    assert reported.short == UNAVAILABLE
    assert reported.took_s < LEASE_S + 0.1, "nothing is gained by waiting"
    assert (world.client.seen, await world.state("a")) == ([], "none")
    assert (await world.deliver(order_of(world, api))).short == OK


async def test_request_is_sent_while_its_lease_holds(world: World) -> None:
    async def stop_shortly() -> None:
        virtual_time.pass_at_once(UPSTREAM_TIMEOUT_S - 0.1)

    world.client.script("a", Step(halt=stop_shortly))
    assert (await world.deliver(world.bind("a"), left_s=30.0)).short == OK


@pytest.mark.parametrize("state", [State.REJECTED, State.APPLIED])
async def test_request_resolved_by_an_operator_is_not_sent(world: World, state: State) -> None:
    ordered = world.bind("a")

    async def resolve() -> None:
        await stop()
        now_ms = round(wall_s() * 1000)
        assert await world.ledger.resolve(ordered.key, Ending(state), who="ops", why="asked", now_ms=now_ms)

    world.client.script("a", Step(halt=resolve))
    assert (await world.deliver(ordered, left_s=30.0)).short == UNAVAILABLE
    assert (world.client.seen, await world.state("a")) == ([], str(state))


async def test_another_attempt_is_not_sent_after_its_lease_either(world: World) -> None:
    world.client.script("a", LOST, STOPPED, S)
    assert (await world.deliver(world.sync("a"), left_s=30.0)).short == OK
    assert (len(world.client.attempts), len(world.client.seen)) == (3, 2)


async def test_attempt_that_was_sent_is_reported_if_the_next_lease_expired(world: World) -> None:
    world.client.script("a", LOST, STOPPED)
    reported = await world.deliver(world.sync("a"), left_s=LEASE_S)
    assert reported.short == ("CONNECTION_LOST", "unknown", "same_request_id")
    assert len(world.client.seen) == 1


async def test_request_is_not_sent_if_the_wall_clock_is_set_past_its_lease(world: World) -> None:
    """Other processes compare the lease with the wall clock, and may have taken over."""

    async def set_ahead() -> None:
        world.wall_step_s = LEASE_S

    world.client.script("a", Step(halt=set_ahead))
    assert (await world.deliver(world.bind("a"))).short == UNAVAILABLE
    assert world.client.seen == []


async def test_stopped_process_does_not_send_if_the_wall_clock_is_set_back(world: World) -> None:
    async def stop_and_set_back() -> None:
        await stop()
        world.wall_step_s = -3600.0

    world.client.script("a", Step(halt=stop_and_set_back))
    assert (await world.deliver(world.bind("a"), left_s=30.0)).short == UNAVAILABLE
    assert world.client.seen == []
