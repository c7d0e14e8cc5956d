"""One run of a plan: gateways, store, network, AlipayHK and callers; and its history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final

import pytest

from clients.alipayhk.api import Api
from service.delivery.delivery import Limits
from service.delivery.flight import Flight
from service.delivery.state import FlightState
from service.ledger import Ending, Key, LedgerUnavailable, Row, State

from .disk import Disk
from .gateway import UPSTREAM_TIMEOUT_S, Gateway, Host, Order, Report, key_of
from .network import Network
from .plan import MONTH_S, SPAN_S, Event, Plan, PlannedCall
from .store import Store
from .timeline import Process, Timeline
from .wallet import Wallet

RESTART_S: Final = 0.5
AFTER_S: Final = 12.0
"""How long the faults go on after the last call was planned, in seconds."""
ARRIVES_S: Final = 10.0
"""The longest time for which a request is under way to AlipayHK: an operator waits that long."""
DEADLINE_S: Final = 0.001
CALM_S: Final = 12.0
"""How long the world is calm before every request is asked for again: longer than a lease."""
CALM_CLOCK_S: Final = 70.0
"""The same after the clock was set back: longer than the longest lease that there can be."""
DROPS_S: Final = 65.0
"""In this time every gateway drops old results once."""
ASKED_S: Final = 5.0


@dataclass(slots=True)
class Made:
    """A call that was made, and what it was told."""

    number: int
    order: Order
    gateway: str
    started_s: float
    left_s: float
    ran_before_s: float
    monotonic_s: float
    """CLOCK_MONOTONIC of its process when it started."""
    intention: int
    """What the caller wants: calls for it under a new id share its number."""
    ended_s: float = 0.0
    report: Report | None = None
    left: bool = False
    """Whether the caller left before."""
    late_s: float = 0.0
    """How long after its deadline it ended, without the time that its process was frozen."""
    row: Row | None = None
    """What was durable of the request at its end; only with the shared store."""
    calm: bool = False
    clock_steps: int = 0
    """How often the wall clock had been set when it ended."""
    unclear: bool = False
    """Whether a claim of its request was committed, and failed all the same."""
    lost: bool = False
    """Whether the result could not be recorded at once, so that a crash can lose it."""


@dataclass(slots=True)
class Leaving:
    """The first byte of a request left a process."""

    at_s: float
    process: str
    order_id: tuple[str, str]
    claimed: bool
    """Whether the process held a claim that had not expired; True without a ledger between processes."""
    busy_with: str
    """Another request for the same linkage that was claimed at that time."""
    clock_steps: int
    at_once: str = ""
    """Another request for the same linkage, or the same one elsewhere, that has no answer yet."""


@dataclass(slots=True)
class Resolved:
    """A person's decision about a request in doubt."""

    at_s: float
    order_id: tuple[str, str]
    state: State


@dataclass
class World:
    """Everything in one run."""

    plan: Plan
    directory: Path
    disk: Disk
    tracing: bool = False
    calls: list[Made] = field(default_factory=list)
    leavings: list[Leaving] = field(default_factory=list)
    resolutions: list[Resolved] = field(default_factory=list)
    trace: list[tuple[float, tuple[Any, ...]]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    months: list[float] = field(default_factory=list)
    """When a month passed."""
    out_of_turn: list[str] = field(default_factory=list)
    """Requests of one process that overtook an older one for the same linkage."""
    accepted: int = 0
    """How many requests were queued to be sent."""
    attempts: int = 0
    deaths: list[float] = field(default_factory=list)
    power_losses: list[float] = field(default_factory=list)
    """When processes died."""

    def __post_init__(self) -> None:
        """Build it; nothing has run yet."""
        dice = Random(self.plan.seed)
        self.timeline = Timeline(dice)
        self.start_s = self.timeline.now_s
        self.host = Host(self.timeline)
        self.wallet = Wallet(dict(self.plan.verdicts))
        self.network = Network(
            self.timeline, self.wallet, self.plan.connects, self.plan.treatments, self.note
        )
        self.network.on_first_byte = self._on_first_byte
        self.timeline.after_step = self._after_step
        self.store = Store(self.plan.store, self.timeline, self.plan.faults, self.directory, self.disk)
        self.chance = Random(dice.random())
        self.gateways: list[Gateway | None] = [None] * self.plan.gateways
        self.dead: list[Gateway] = []
        self._waiting: dict[Process, list[list[Any]]] = {}
        """Events that happen after so many steps of a process."""
        self._expected: list[Event] = []
        """Events that wait for a request's state."""
        self._suspended_until_s = 0.0
        self._left: dict[tuple[str, str], float] = {}
        self._orders_by_key = {key_of(call.order): call.order for call in self.plan.calls}

    def run(self) -> World:
        """Run the plan, and then, in calm, ask for each request again."""
        with self.timeline.clock(), self._traced():
            for number in range(self.plan.gateways):
                self._start(number)
            for call in self.plan.calls:
                self.timeline.at(self.start_s + call.at_s, partial(self._begin, call))
            for event in self.plan.events:
                self.timeline.at(self.start_s + event.at_s, partial(self._plan, event))
            self.timeline.run(self.start_s + SPAN_S + AFTER_S)
            self._calm_down()
            self._ask_again()
            self._finish()
        return self

    def note(self, who: str, *what: Any) -> None:
        """Add a line to the trace."""
        if self.tracing:
            self.trace.append((self.timeline.now_s, (who, *what)))

    # -- gateways

    def _start(self, number: int) -> None:
        if self.gateways[number] is not None:
            return
        if self.timeline.now_s < self._suspended_until_s:
            self.timeline.at(self._suspended_until_s, partial(self._start, number))
            return
        limits = Limits(self.plan.max_in_flight, attempts_max=5)
        try:
            self.gateways[number] = Gateway(
                f"g{number}", self.host, self.network, self.store, self.note, self.chance, limits
            )
        except LedgerUnavailable as error:
            self.note(f"g{number}", "cannot start", error)
            self.timeline.after(RESTART_S, partial(self._start, number))

    def _kill(self, number: int) -> None:
        gateway = self.gateways[number]
        if gateway is None:
            return
        self.note(gateway.name, "is killed")
        self.deaths.append(self.timeline.now_s)
        self.gateways[number] = None
        self.dead.append(gateway)
        gateway.kill()
        for key in [key for key, held in self.store.held.items() if held.process == gateway.name]:
            self.store.held[key].process = "dead"
        self.timeline.after(RESTART_S, partial(self._start, number))

    def _after_step(self, process: Process) -> None:
        self.network.receive(process)
        for waiting in self._waiting.get(process, []):
            waiting[0] -= 1
        while (due := self._waiting.get(process)) and due[0][0] <= 0:
            _, event = due.pop(0)
            self._happen(event)

    # -- events

    def _plan(self, event: Event) -> None:
        """Let an event happen now, or after so many steps of its gateway."""
        gateway = self.gateways[event.gateway]
        if event.state and gateway is not None:
            self._expected.append(event)
        elif event.steps and gateway is not None:
            self._after_steps(gateway.process, event)
        else:
            self._happen(event)

    def _after_steps(self, process: Process, event: Event) -> None:
        waiting = self._waiting.setdefault(process, [])
        waiting.append([event.steps, event])
        waiting.sort(key=lambda one: one[0])

    def _happen(self, event: Event) -> None:
        self.note("event", event.kind, event.amount)
        self.EVENTS[event.kind](self, event)

    def _lose_power(self, _: Event) -> None:
        self.power_losses.append(self.timeline.now_s)
        files = self.store.files_after_power_loss()
        for number in range(len(self.gateways)):
            self._kill(number)
        self.store.lose_power(files)

    def _freeze(self, event: Event) -> None:
        gateway = self.gateways[event.gateway]
        if gateway is not None:
            gateway.process.freeze(event.amount)

    def _outage(self, event: Event) -> None:
        self.store.gone_until_s = self.timeline.now_s + event.amount

    def _suspend(self, event: Event) -> None:
        seconds = MONTH_S if event.kind == "month" else event.amount
        self._suspended_until_s = max(self._suspended_until_s, self.timeline.now_s + seconds)
        if event.kind == "month":
            self.months.append(self.timeline.now_s)
        for gateway in [one for one in self.gateways if one is not None]:
            gateway.process.freeze(seconds, suspended=True)

    def _stop(self, event: Event) -> None:
        gateway = self.gateways[event.gateway]
        if gateway is None:
            return
        number = event.gateway

        async def shut_down() -> None:
            gateway.delivery.close()
            await gateway.delivery.idle(5.0)
            gateway.maintenance.cancel()
            await gateway.session.close()

        with gateway.process.entered():
            task = gateway.process.loop.create_task(shut_down())
            task.add_done_callback(lambda _: self.timeline.after(0.0, partial(self._kill, number)))

    def _resolve(self, _: Event) -> None:
        """Let a person look up a request in doubt at AlipayHK, and record what it says."""
        gateway = next((one for one in self.gateways if one is not None), None)
        if gateway is None or not self.store.outlives_process:
            return

        async def resolve() -> None:
            now_ms = round(self.host.wall_s() * 1000)
            async for row in gateway.session._ledger.rows(in_doubt_at_ms=now_ms):
                order = self._orders_by_key.get((row.key.client_id, row.key.api, row.key.request_id))
                if order is None or self._is_under_way(order):
                    continue
                decision = self.wallet.decided.get(order.id)
                state = State.APPLIED if decision is not None and decision.code == "S" else State.REJECTED
                if await gateway.session._ledger.resolve(
                    row.key, Ending(state), who="ann", why="asked", now_ms=now_ms
                ):
                    self.resolutions.append(Resolved(self.timeline.now_s, order.id, state))
                    self.note("operator", "resolves", order.request_id, state)
                return

        with gateway.process.entered():
            gateway.process.loop.create_task(resolve())

    def _is_under_way(self, order: Order) -> bool:
        """Return whether AlipayHK may yet get the request: nobody decides that early."""
        latest_s = max((one.at_s for one in self.network.sent if one.request == order.id), default=0.0)
        return self.timeline.now_s - latest_s < ARRIVES_S

    EVENTS: ClassVar[dict[str, Callable[[World, Event], None]]] = {
        "kill": lambda self, event: self._kill(event.gateway),
        "power": _lose_power,
        "outage": _outage,
        "freeze": _freeze,
        "suspend": _suspend,
        "month": _suspend,
        "clock": lambda self, event: self.host.set_clock(event.amount),
        "stop": _stop,
        "resolve": _resolve,
    }

    # -- callers

    def _begin(
        self, call: PlannedCall, number: int | None = None, *, retried: bool = False, calm: bool = False
    ) -> None:
        gateway = self.gateways[call.gateway]
        if gateway is None:
            if not calm:
                at_s = max(self.timeline.now_s + RESTART_S, self._suspended_until_s)
                self.timeline.at(at_s, partial(self._begin, call, number, retried=retried))
            return
        intention = len(self.calls) if number is None else number
        made = Made(
            len(self.calls),
            call.order,
            gateway.name,
            self.timeline.now_s,
            call.left_s,
            gateway.process.ran_s,
            gateway.process.monotonic_s(),
            intention,
            calm=calm,
        )
        self.calls.append(made)
        self.note(f"call {made.number}", "starts at", gateway.name, call.order, call.left_s)
        task = gateway.call(
            call.order, call.left_s, partial(self._told, made, call, gateway.process), retried=retried
        )
        if call.cancel_s:
            self.timeline.after(call.cancel_s, partial(self._leave, made, gateway, task))

    def _leave(self, made: Made, gateway: Gateway, task: Any) -> None:
        if made.report is None and gateway.alive and not task.done():
            made.left, made.ended_s = True, self.timeline.now_s
            self.note(f"call {made.number}", "is left by its caller")
            with gateway.process.entered():
                task.cancel()

    def _told(self, made: Made, call: PlannedCall, process: Process, report: Report) -> None:
        made.report, made.ended_s, made.clock_steps = report, self.timeline.now_s, self.host.steps
        made.left = False
        made.late_s = process.ran_s - made.ran_before_s - made.left_s
        key = Key(*key_of(made.order))
        made.unclear = key in self.store.unclear
        made.row = self.store.durable(key) if self.plan.store == "shared" else None
        # At its deadline a call gets a final result that is not recorded yet.
        made.lost = (
            key in self.store.failed or process.monotonic_s() - made.monotonic_s > made.left_s - DEADLINE_S
        )
        self.note(f"call {made.number}", "ends", report)
        if made.calm or not call.follow_ups:
            return
        order, at = call.order, call.gateway
        if report.retry == "new_request_id" and report.reason != "WALLET_REJECTED":
            order = replace(order, request_id=f"{order.request_id}'")
            self._orders_by_key[key_of(order)] = order
        elif report.retry != "same_request_id":
            return
        if call.moves:
            at = (at + 1) % self.plan.gateways
        again = replace(call, order=order, gateway=at, follow_ups=call.follow_ups - 1, cancel_s=0.0)
        self.timeline.after(call.pause_s, partial(self._begin, again, made.intention, retried=False))

    # -- the end

    def _calm_down(self) -> None:
        self.note("world", "is calm from now on")
        self.network.calm = self.store.calm = True
        self._waiting.clear()
        self._expected.clear()
        self.host.set_clock(0.0)
        processes = [gateway.process for gateway in self.gateways if gateway is not None]
        frozen_s = max((process.frozen_until_s for process in processes), default=0.0)
        self.timeline.run(max(self.timeline.now_s, frozen_s, self._suspended_until_s) + CALM_S)

    def _ask_again(self) -> None:
        if self.months:
            self.timeline.run(self.timeline.now_s + DROPS_S)
        if self.host.steps > 1:
            # The first claim cuts leases that are impossibly long; they expire later.
            self._ask_each(checked=False)
            self.timeline.run(self.timeline.now_s + CALM_CLOCK_S)
        self._ask_each(checked=True)

    def _ask_each(self, *, checked: bool) -> None:
        orders = {(made.order.id, made.order.content): made.order for made in self.calls}
        for order in orders.values():
            for gateway in range(self.plan.gateways):
                self._begin(PlannedCall(0.0, gateway, order, ASKED_S, follow_ups=0), calm=checked)
                self.timeline.run(self.timeline.now_s + 1.0)
        self.timeline.run(self.timeline.now_s + ASKED_S + 2.0)

    def _finish(self) -> None:
        """Collect the rows and what is left over, and shut everything down."""
        for gateway in filter(None, self.gateways):
            self._collect_rows(gateway)
            left = [name for name, ones in _left_over(gateway) if ones]
            self.complaints += [f"{gateway.name}: {name} left over" for name in left]
        for gateway in [*self.dead, *filter(None, self.gateways)]:
            self.complaints += [f"{gateway.name}: {_text(one)}" for one in gateway.process.complaints]
            gateway.process.alive = False
            self.network.drop(gateway.process)
            self.store.dropped(gateway.process)
            gateway.dispose()
        self.network.close()

    def _collect_rows(self, gateway: Gateway) -> None:
        async def collect() -> None:
            async for row in gateway.session._ledger.rows():
                self.rows[row.key.api, row.key.request_id] = row

        with gateway.process.entered():
            task = gateway.process.loop.create_task(collect())
        self.timeline.run(self.timeline.now_s + 1.0)
        assert task.done()

    def _on_first_byte(self, process: Process) -> None:
        sent = self.network.sent[-1]
        key = Key(key_of(Order(Api(sent.request[0]), sent.request[1], ""))[0], *sent.request)
        held = self.store.held.get(key)
        now_s = self.timeline.now_s
        now_ms = self.host.wall_s() * 1000
        claimed = held is not None and held.process == process.name
        claimed &= held is not None and now_s < held.until_boot_s and now_ms < held.until_ms
        others = [
            other.request_id
            for other, one in self.store.held.items()
            if held is not None
            and other != key
            and one.linkage is not None
            and one.linkage == held.linkage
            and now_ms < one.until_ms
            and other.api == key.api
        ]
        self.leavings.append(
            Leaving(
                now_s,
                process.name,
                sent.request,
                claimed or self.plan.store == "off",
                ", ".join(others),
                self.host.steps,
                self._at_once(process, key),
            )
        )
        self._left[process.name, key.request_id] = process.ran_s

    def _at_once(self, process: Process, key: Key) -> str:
        """Return the requests that must not be in flight while this one is sent."""
        gateways = [gateway for gateway in self.gateways if gateway is not None]
        own = next(gateway for gateway in gateways if gateway.process is process)
        flight = own.delivery._flights.get(key)
        found = []
        for gateway in gateways:
            for other in gateway.delivery._flights.values():
                same_id = other.request.key == key and gateway is not own
                linkage = flight.linkage if flight else None
                same_linkage = linkage is not None and other.linkage == linkage and other is not flight
                if (same_id or same_linkage) and other.state is FlightState.AWAITING_ANSWER:
                    left_s = self._left.get((gateway.name, other.request.request_id), 0.0)
                    # A process that was frozen may have lost its lease.
                    if gateway.process.ran_s - left_s < UPSTREAM_TIMEOUT_S and not gateway.process.frozen_s:
                        found.append(f"{other.request.request_id} by {gateway.name}")
        return ", ".join(found)

    @contextmanager
    def _traced(self) -> Iterator[None]:
        """Note each change of a flight's state."""
        enter = Flight.enter

        def noted(flight: Flight, state: FlightState, **more: Any) -> None:
            self._entering(flight, state)
            enter(flight, state, **more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Flight, "enter", noted)
            yield

    def _entering(self, flight: Flight, state: FlightState) -> None:
        process = self.timeline.current
        assert process is not None
        self.note(process.name, "flight", flight.request.request_id, f"{flight.state} -> {state}")
        for event in [
            one for one in self._expected if (f"g{one.gateway}", one.state) == (process.name, state)
        ]:
            self._expected.remove(event)
            self._after_steps(process, event)
        self.accepted += state is FlightState.QUEUED_FOR_LINKAGE
        self.attempts += state is FlightState.CONNECTING
        if (flight.state, state) != (FlightState.QUEUED_FOR_LINKAGE, FlightState.QUEUED_FOR_CAPACITY):
            return
        gateway = next(one for one in self.gateways if one is not None and one.process is process)
        for other in gateway.delivery._flights.values():
            waits = other.state is FlightState.QUEUED_FOR_LINKAGE and not other.cancelled
            waits &= other.since_s < process.monotonic_s()
            same = other.linkage is not None and other.linkage == flight.linkage
            older = (other.request.biz_time_ms or 0) < (flight.request.biz_time_ms or 0)
            if other is not flight and waits and same and older:
                ids = f"{flight.request.request_id} overtakes {other.request.request_id}"
                self.out_of_turn.append(f"{ids}, which is older and waits")


def _left_over(gateway: Gateway) -> list[tuple[str, Any]]:
    delivery = gateway.delivery
    pending: Any = gateway.session._pending
    return [
        ("flights", delivery._flights),
        ("queues of linkages", delivery._linkages._waiting),
        ("callers", +delivery._by_caller),
        ("slots", any(sender.pace.limiter._taken for sender in delivery._senders.values())),
        ("pending writes", len(pending)),
        ("calls", gateway.waiting),
    ]


def _text(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{context.get('message')}: {type(error).__name__} {error}"
