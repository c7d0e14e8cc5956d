"""One run of a plan: gateways, store, network, AlipayHK and callers; and its history."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from service.delivery.delivery import Limits
from service.ledger import LedgerUnavailable, Row

from .callers import RESTART_S, Callers
from .disk import Disk
from .events import Events
from .gateway import WINDOW_S, Gateway, Host, key_of
from .network import Network
from .plan import SPAN_S, Plan
from .postgres_server import Server
from .postgres_session import Session
from .postgres_store import PostgresStore
from .records import Leaving, Made, Resolved
from .store import Store
from .timeline import Process, Timeline
from .wallet import Wallet
from .watch import Watch

AFTER_S: Final = 12.0
"""How long the faults go on after the last call was planned, in seconds."""
CALM_S: Final = 12.0
"""How long the world is calm before every request is asked for again: longer than a lease."""
CALM_CLOCK_S: Final = 70.0
"""The same after the clock was set back: longer than the longest lease that there can be."""
DROPS_S: Final = 65.0
"""In this time every gateway drops old results once."""


@dataclass
class World:
    """Everything in one run."""

    plan: Plan
    directory: Path
    disk: Disk
    session: Session | None = None
    """The database of a run whose store is on PostgreSQL."""
    tracing: bool = False
    calls: list[Made] = field(default_factory=list)
    leavings: list[Leaving] = field(default_factory=list)
    resolutions: list[Resolved] = field(default_factory=list)
    trace: list[tuple[float, tuple[Any, ...]]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    months: list[float] = field(default_factory=list)
    """When a month passed."""
    accepted: int = 0
    """How many requests were queued to be sent."""
    attempts: int = 0
    deaths: list[float] = field(default_factory=list)
    """When processes ended that may have had something to write: not those that stopped as they should."""
    power_losses: list[float] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)
    """When a process was frozen or the machine suspended, and for how many seconds."""
    ends: list[float] = field(default_factory=list)
    """When processes ended."""
    suspended_until_s: float = 0.0
    false_resolutions: int = 0
    """How many decisions of a person may contradict AlipayHK."""

    def __post_init__(self) -> None:
        """Build it; nothing has run yet."""
        dice = Random(self.plan.seed)
        self.timeline = Timeline(dice)
        self.start_s = self.timeline.now_s
        self.hosts = [Host(self.timeline)] * self.plan.gateways
        if self.has_hosts:
            self.hosts = [Host(self.timeline, ahead_s) for ahead_s in self.plan.clocks_s]
        self.wallet = Wallet(dict(self.plan.verdicts))
        self.watch, self.events, self.callers = Watch(self), Events(self), Callers(self)
        self.network = Network(
            self.timeline, self.wallet, self.plan.connects, self.plan.treatments, self.note
        )
        self.network.on_first_byte = self.watch.first_byte
        self.timeline.after_step = self._after_step
        self.store = self._new_store()
        self.store.answered, self.store.note = self.watch.answered, self.note
        self.store.wall_s, self.store.overtaken = self.hosts[0].wall_s, self.watch.overtaken
        self.chance = Random(dice.random())
        self.gateways: list[Gateway | None] = [None] * self.plan.gateways
        self.dead: list[Gateway] = []
        self.orders_by_key = {key_of(call.order): call.order for call in self.plan.calls}

    def _new_store(self) -> Store:
        timeline, plan = self.timeline, self.plan
        if plan.store != "postgres":
            return Store(plan.store, timeline, plan.faults, self.directory, self.disk)
        assert self.session is not None
        dice = Random(f"database {plan.seed}")
        return PostgresStore(
            timeline, plan.faults, self.directory, self.disk, self.session, dice, plan.deaf_share
        )

    @property
    def has_hosts(self) -> bool:
        """Whether each gateway has a host of its own."""
        return bool(self.plan.clocks_s)

    @property
    def database(self) -> Server:
        """The server of the store."""
        assert isinstance(self.store, PostgresStore)
        return self.store.server

    def run(self) -> World:
        """Run the plan, and then, in calm, ask for each request again."""
        with self.timeline.clock(), self.watch.tracing(), self.store.running():
            for number in range(self.plan.gateways):
                self._start(number)
            for call in self.plan.calls:
                self.timeline.at(self.start_s + call.at_s, partial(self.callers.begin, call))
            for event in self.plan.events:
                self.timeline.at(self.start_s + event.at_s, partial(self.events.plan, event))
            self.timeline.run(self.start_s + SPAN_S + AFTER_S)
            self._calm_down()
            self._ask_again()
            self._finish()
        return self

    def note(self, who: str, *what: Any) -> None:
        """Add a line to the trace."""
        if self.tracing:
            self.trace.append((self.timeline.now_s, (who, *what)))

    @property
    def running(self) -> list[Gateway]:
        """The gateways that run."""
        return [gateway for gateway in self.gateways if gateway is not None]

    def kill(self, number: int, *, stopped: Gateway | None = None) -> None:
        """Kill a gateway, or end it after it has `stopped`; it starts again soon."""
        gateway = self.gateways[number]
        if gateway is None or (stopped is not None and gateway is not stopped):
            return
        self.note(gateway.name, "is killed" if stopped is None else "ends")
        self.watch.interrupted(gateway)
        self.ends.append(self.timeline.now_s)
        if stopped is None or gateway.delivery._flights or self.store.has_unwritten(gateway.name):
            self.deaths.append(self.timeline.now_s)
        self.gateways[number] = None
        self.dead.append(gateway)
        gateway.kill()
        self.store.forget(gateway.name)
        self.timeline.after(RESTART_S, partial(self._start, number))

    def _start(self, number: int) -> None:
        if self.gateways[number] is not None:
            return
        if self.timeline.now_s < self.suspended_until_s:
            self.timeline.at(self.suspended_until_s, partial(self._start, number))
            return
        limits = Limits(self.plan.max_in_flight, attempts_max=5)
        try:
            self.gateways[number] = Gateway(
                f"g{number}",
                self.hosts[number],
                self.network,
                self.store,
                self.note,
                self.chance,
                limits,
            )
        except LedgerUnavailable as error:
            self.note(f"g{number}", "cannot start", error)
            self.timeline.after(RESTART_S, partial(self._start, number))

    def _after_step(self, process: Process) -> None:
        self.network.receive(process)
        self.events.stepped(process)

    # -- the end

    def _calm_down(self) -> None:
        self.note("world", "is calm from now on")
        self.network.calm = self.store.calm = True
        self.events.clear()
        for gateway in self.running:
            self.watch.interrupted(gateway)
        for host in dict.fromkeys(self.hosts):
            host.set_clock(0.0)
            host.ahead_s = host.ahead_s if abs(host.ahead_s) < WINDOW_S else 0.0
        self.store.calm_down()
        frozen_s = max((gateway.process.frozen_until_s for gateway in self.running), default=0.0)
        until_s = max(frozen_s, self.suspended_until_s, self.store.disturbed_until_s)
        self.timeline.run(max(self.timeline.now_s, until_s) + CALM_S)
        self.store.check_lost_claims()

    def _ask_again(self) -> None:
        if self.months:
            self.timeline.run(self.timeline.now_s + DROPS_S)
        if self.store.clock_steps(self.hosts[0].steps) > 1:
            # The first claim cuts leases that are impossibly long; they expire later.
            self.callers.ask_each(checked=False)
            self.timeline.run(self.timeline.now_s + CALM_CLOCK_S)
        self.callers.ask_each(checked=True)

    def _finish(self) -> None:
        """Collect the rows and what is left over, and shut everything down."""
        for gateway in self.running:
            self._collect_rows(gateway)
            left = [name for name, ones in _left_over(gateway) if ones]
            self.complaints += [f"{gateway.name}: {name} left over" for name in left]
        for gateway in [*self.dead, *self.running]:
            self.complaints += [f"{gateway.name}: {_text(one)}" for one in gateway.process.complaints]
            gateway.process.alive = False
            self.network.drop(gateway.process)
            self.store.dropped(gateway.process)
            gateway.dispose()
        self.network.close()
        self.store.end()

    def _collect_rows(self, gateway: Gateway) -> None:
        async def collect() -> None:
            async for row in gateway.session._ledger.rows():
                self.rows[row.key.api, row.key.request_id] = row

        with gateway.process.entered():
            task = gateway.process.loop.create_task(collect())
        self.timeline.run(self.timeline.now_s + 1.0)
        assert task.done()


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
