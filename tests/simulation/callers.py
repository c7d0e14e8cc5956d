"""Callers: they start calls, leave, and follow the advice in a status."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from service.delivery.flight import Flight
from service.delivery.state import FlightState
from service.ledger import Key

from .gateway import Gateway, Report, key_of
from .plan import PlannedCall
from .records import Made
from .timeline import Process

if TYPE_CHECKING:
    from .world import World

RESTART_S: Final = 0.5
"""The time until a gateway that ended is started again, in seconds."""
DEADLINE_S: Final = 0.001
ASKED_S: Final = 5.0
APART_S: Final = 1.0
"""The time from one request to the next, when a gateway is asked for all of them."""
QUEUED: Final = {FlightState.QUEUED_FOR_LINKAGE, FlightState.QUEUED_FOR_CAPACITY}


class Callers:
    """All callers of a run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._open: dict[int, tuple[Made, Gateway, Any]] = {}
        """The calls in progress, by their number, with their tasks."""

    def begin(self, call: PlannedCall, number: int | None = None, *, calm: bool = False) -> None:
        """Start a call; if its gateway is down, try again, except in calm."""
        world = self._world
        gateway = world.gateways[call.gateway]
        if gateway is None:
            if not calm:
                at_s = max(world.timeline.now_s + RESTART_S, world.suspended_until_s)
                world.timeline.at(at_s, partial(self.begin, call, number))
            return
        made = Made(
            len(world.calls),
            call.order,
            gateway.name,
            world.timeline.now_s,
            call.left_s,
            gateway.process.ran_s,
            gateway.process.monotonic_s(),
            len(world.calls) if number is None else number,
            calm=calm,
        )
        world.calls.append(made)
        world.note(f"call {made.number}", "starts at", gateway.name, call.order, call.left_s)
        task = gateway.call(
            call.order,
            call.left_s,
            partial(self._told, made, call, gateway.process),
            partial(_joined, made),
        )
        self._open[made.number] = made, gateway, task
        if call.cancel_s:
            world.timeline.after(call.cancel_s, partial(self._leave, made, gateway, task))

    def leave_queues(self, gateway: Gateway) -> None:
        """Let every caller of a gateway leave whose request waits in a queue."""
        for made, at, task in list(self._open.values()):
            if at is gateway and made.flight is not None and made.flight.state in QUEUED:
                self._leave(made, gateway, task)

    def ask_each(self, *, checked: bool) -> None:
        """Ask every gateway for every request, one after the other; with a host for each, one of them."""
        world = self._world
        # Calls that are not checked end before the next one starts: a full gateway reads no rows.
        left_s = ASKED_S if checked else APART_S / 2
        orders = {(made.order.id, made.order.content): made.order for made in world.calls}
        gateways = range(world.plan.gateways)
        for number, order in enumerate(orders.values()):
            for gateway in [number % len(gateways)] if world.has_hosts else gateways:
                self.begin(PlannedCall(0.0, gateway, order, left_s, follow_ups=0), calm=checked)
                world.timeline.run(world.timeline.now_s + APART_S)
        world.timeline.run(world.timeline.now_s + ASKED_S + 2.0)

    def _leave(self, made: Made, gateway: Gateway, task: Any) -> None:
        if made.report is None and gateway.alive and not task.done():
            made.left, made.ended_s = True, self._world.timeline.now_s
            self._world.note(f"call {made.number}", "is left by its caller")
            self._open.pop(made.number, None)
            with gateway.process.entered():
                task.cancel()

    def _told(self, made: Made, call: PlannedCall, process: Process, report: Report) -> None:
        world, key = self._world, Key(*key_of(made.order))
        self._open.pop(made.number, None)
        steps = world.hosts[call.gateway].steps
        made.report, made.ended_s, made.clock_steps = report, world.timeline.now_s, steps
        made.left = False
        made.late_s = process.ran_s - made.ran_before_s - made.left_s
        made.early_s = made.monotonic_s + made.left_s - process.monotonic_s()
        made.unclear = key in world.store.unclear
        made.row = world.store.durable(key) if world.store.shows_rows else None
        # At its deadline a call gets a final result that is not recorded yet.
        made.lost = key in world.store.failed or made.early_s < DEADLINE_S
        world.note(f"call {made.number}", "ends", report)
        world.watch.told(made, process)
        if made.calm or not call.follow_ups:
            return
        order, at = call.order, call.gateway
        if report.retry == "new_request_id" and report.reason != "WALLET_REJECTED":
            order = replace(order, request_id=f"{order.request_id}'")
            world.orders_by_key[key_of(order)] = order
        elif report.retry != "same_request_id":
            return
        if call.moves:
            at = (at + 1) % world.plan.gateways
        again = replace(call, order=order, gateway=at, follow_ups=call.follow_ups - 1, cancel_s=0.0)
        world.timeline.after(call.pause_s, partial(self.begin, again, made.intention))


def _joined(made: Made, flight: Flight) -> None:
    made.flight = flight
