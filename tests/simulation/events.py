"""Events: faults of a process or its machine, and what an operator does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from service.delivery.state import FlightState
from service.ledger import Ending, LedgerUnavailable, State

from .gateway import Gateway, Order
from .plan import MONTH_S, Event
from .records import Resolved
from .timeline import Process

if TYPE_CHECKING:
    from .world import World

ARRIVES_S: Final = 10.0
"""The longest time for which a request is under way to AlipayHK: an operator waits that long."""
IDLE_S: Final = 5.0
HELD_S: Final = 1.0
QUIET: Final = {"clock", "leave", "resolve"}
"""What the order of those that wait does not depend on."""


@dataclass(slots=True)
class _Due:
    """An event that happens after so many more steps of a process."""

    steps: int
    event: Event


class Events:
    """The planned events that have not happened yet."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: dict[Process, list[_Due]] = {}
        self._expected: list[Event] = []
        """Events that wait for a request's state."""

    def plan(self, event: Event) -> None:
        """Let an event happen now, or after so many steps of its gateway."""
        gateway = self._world.gateways[event.gateway]
        if event.state and gateway is not None:
            self._expected.append(event)
        elif event.steps and gateway is not None:
            self._after_steps(gateway.process, event)
        else:
            self._happen(event)

    def entering(self, process: Process, state: FlightState) -> None:
        """Count the steps of the events that waited for this state."""
        for event in [
            one for one in self._expected if (f"g{one.gateway}", one.state) == (process.name, state)
        ]:
            self._expected.remove(event)
            self._after_steps(process, event)

    def stepped(self, process: Process) -> None:
        """Let the events happen that are due after one more step of a process."""
        for waiting in self._waiting.get(process, []):
            waiting.steps -= 1
        while (due := self._waiting.get(process)) and due[0].steps <= 0:
            self._happen(due.pop(0).event)

    def clear(self) -> None:
        """Let no more events happen."""
        self._waiting.clear()
        self._expected.clear()

    def _after_steps(self, process: Process, event: Event) -> None:
        waiting = self._waiting.setdefault(process, [])
        waiting.append(_Due(event.steps, event))
        waiting.sort(key=lambda one: one.steps)

    def _happen(self, event: Event) -> None:
        self._world.note("event", event.kind, event.amount)
        self._world.store.disturbed |= event.kind not in QUIET
        EVENTS[event.kind](self._world, event)


def _lose_power(world: World, _: Event) -> None:
    world.power_losses.append(world.timeline.now_s)
    files = world.store.files_after_power_loss()
    for number in range(len(world.gateways)):
        world.kill(number)
    world.store.lose_power(files)


def _freeze(world: World, event: Event) -> None:
    gateway = world.gateways[event.gateway]
    if gateway is not None:
        world.pauses.append((world.timeline.now_s, event.amount))
        world.watch.interrupted(gateway)
        gateway.process.freeze(event.amount)


def _suspend(world: World, event: Event) -> None:
    """Suspend a machine, or all of them for a month."""
    is_month, host = event.kind == "month", world.hosts[event.gateway]
    seconds = MONTH_S if is_month else event.amount
    world.pauses.append((world.timeline.now_s, seconds))
    if is_month:
        world.months.append(world.timeline.now_s)
    if is_month or not world.has_hosts:
        world.suspended_until_s = max(world.suspended_until_s, world.timeline.now_s + seconds)
    for gateway in world.running:
        if is_month or gateway.host is host:
            world.watch.interrupted(gateway)
            gateway.process.freeze(seconds, suspended=True)


def _set_clock(world: World, event: Event) -> None:
    host = world.hosts[event.gateway]
    for gateway in world.running:
        if gateway.host is host:
            world.watch.interrupted(gateway)
    host.set_clock(event.amount)


def _outage(world: World, event: Event) -> None:
    world.store.gone_until_s = world.timeline.now_s + event.amount


def _unrecordable(world: World, event: Event) -> None:
    world.store.unrecordable_until_s = world.timeline.now_s + event.amount


def _stop(world: World, event: Event) -> None:
    """Stop a gateway as SIGTERM does."""
    number, gateway = event.gateway, world.gateways[event.gateway]
    if gateway is None or gateway.is_stopping:
        return
    gateway.is_stopping = True

    async def shut_down() -> None:
        gateway.delivery.close()
        await gateway.delivery.idle(IDLE_S)
        gateway.maintenance.cancel()
        with suppress(asyncio.CancelledError):
            await gateway.maintenance
        gateway.ledger.stopping()
        await gateway.session.close()

    with gateway.process.entered():
        task = gateway.process.loop.create_task(shut_down())
        task.add_done_callback(
            lambda _: world.timeline.after(0.0, partial(world.kill, number, stopped=gateway))
        )


def _leave(world: World, event: Event) -> None:
    gateway = world.gateways[event.gateway]
    if gateway is not None:
        world.callers.leave_queues(gateway)


def _freeze_database(world: World, event: Event) -> None:
    server = world.database
    server.frozen_until_s = max(server.frozen_until_s, world.timeline.now_s + event.amount)


def _crash_database(world: World, event: Event) -> None:
    world.power_losses.append(world.timeline.now_s)
    world.database.crash(event.amount)


def _set_database_clock(world: World, event: Event) -> None:
    for gateway in world.running:
        world.watch.interrupted(gateway)
    world.database.watcher.set_clock(event.amount)


def _cut_off(world: World, event: Event) -> None:
    """Cut the network between a gateway and the database."""
    world.database.cut_until_s[f"g{event.gateway}"] = world.timeline.now_s + event.amount


def _disconnect(world: World, event: Event) -> None:
    world.database.disconnect(f"g{event.gateway}", listening=event.kind == "deaf")


def _resolve(world: World, _: Event) -> None:
    """Let a person look up a request in doubt at AlipayHK, and record what it says."""
    gateway = next(iter(world.running), None)
    if gateway is None or not world.store.outlives_process:
        return

    async def resolve(gateway: Gateway) -> None:
        now_ms = round(gateway.host.wall_s() * 1000)
        for key in () if world.store.disturbed else world.store.held_for(HELD_S):
            if world.orders_by_key[key].id in world.wallet.decided:
                continue  # its outcome may be recorded first, as in doubt
            # It is in progress, so that this changes nothing, unless it ends in doubt before this arrives.
            world.false_resolutions += 1
            if not await gateway.session._ledger.resolve(
                key, Ending(State.REJECTED), who="eve", why="", now_ms=now_ms
            ):
                world.false_resolutions -= 1
        async for row in gateway.session._ledger.rows(in_doubt_at_ms=now_ms):
            order = world.orders_by_key.get((row.key.client_id, row.key.api, row.key.request_id))
            if order is None or _is_under_way(world, order):
                continue
            decision = world.wallet.decided.get(order.id)
            state = State.APPLIED if decision is not None and decision.code == "S" else State.REJECTED
            if await gateway.session._ledger.resolve(
                row.key, Ending(state), who="ann", why="asked", now_ms=now_ms
            ):
                world.resolutions.append(Resolved(world.timeline.now_s, order.id, state))
                world.note("operator", "resolves", order.request_id, state)
            return

    async def try_to_resolve() -> None:
        with suppress(LedgerUnavailable):  # its process has stopped meanwhile
            await resolve(gateway)

    with gateway.process.entered():
        gateway.process.loop.create_task(try_to_resolve())


def _is_under_way(world: World, order: Order) -> bool:
    """Return whether AlipayHK may yet get the request: nobody decides that early."""
    latest_s = max((one.at_s for one in world.network.sent if one.request == order.id), default=0.0)
    return world.timeline.now_s - latest_s < ARRIVES_S


SERVER_EVENTS: Final[dict[str, Callable[[World, Event], None]]] = {
    "database freeze": _freeze_database,
    "database crash": _crash_database,
    "database clock": _set_database_clock,
    "cut off": _cut_off,
    "disconnect": _disconnect,
    "deaf": _disconnect,
}
"""Faults of a database server."""
EVENTS: Final[dict[str, Callable[[World, Event], None]]] = {
    "kill": lambda world, event: world.kill(event.gateway),
    "power": _lose_power,
    "outage": _outage,
    "unrecordable": _unrecordable,
    "freeze": _freeze,
    "suspend": _suspend,
    "month": _suspend,
    "clock": _set_clock,
    "stop": _stop,
    "leave": _leave,
    "resolve": _resolve,
    **SERVER_EVENTS,
}
