"""What happens in a run: drawn from a seed, and then plain data that can be printed and made shorter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final, TypeVar

from clients.alipayhk.api import Api

from .gateway import LEASE_S, Order
from .network import ANSWERS, FRONT_ENDS, Treatment
from .store import Fault
from .wallet import LIMITED

T = TypeVar("T")
SPAN_S: Final = 12.0
"""The time in which calls start."""
MONTH_S: Final = 31 * 86_400.0
STORES: Final = ("shared",) * 5 + ("sqlite",) * 2 + ("memory", "off")
CALM_SHARE: Final = 0.1
STATES: Final = ("", "CLAIMING", "CONNECTING", "CONNECTING", "CONNECTING", "BACKING_OFF", "RECORDING")
"""States after whose start a fault hits well."""
AMOUNTS: Final = {
    "freeze": (0.2, 3.0, LEASE_S - 0.1, LEASE_S, LEASE_S + 2.0, LEASE_S + 2.0),
    "suspend": (1.0, LEASE_S, 60.0),
    "clock": (-MONTH_S, -3600.0, -10.0, -6.0, -1.0, 1.0, 6.0, 10.0, 3600.0, MONTH_S),
    "outage": (1.0, 3.0, LEASE_S, LEASE_S + 1.0, 8.0),
    "unrecordable": (3.0, LEASE_S, LEASE_S + 2.0, 8.0),
    "database freeze": (0.3, 0.9, 1.5, 3.0, LEASE_S, LEASE_S + 2.0, 8.0),
    "database crash": (0.05, 0.5, 1.0, 3.0, LEASE_S + 1.0),
    "database clock": (-3600.0, -30.0, -6.0, -1.0, 1.0, 6.0, 3600.0),
    "cut off": (0.5, 1.5, 3.0, LEASE_S + 1.0, 8.0),
    "disconnect": (0.0,),
    "deaf": (0.0,),
}
CODES: Final = ("USER_NOT_EXIST", "PROCESS_FAIL", "NO_TABLE_KNOWS")


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A caller's call, and what the caller does afterwards."""

    at_s: float
    gateway: int
    order: Order
    left_s: float = 10.0
    cancel_s: float = 0.0
    """When the caller leaves, in seconds after the start; 0: it waits."""
    follow_ups: int = 1
    """How often it follows the advice to call again."""
    pause_s: float = 0.3
    moves: bool = False
    """Whether it calls the next gateway then."""


@dataclass(frozen=True, slots=True)
class Event:
    """A fault of a process or its machine, or what an operator does."""

    at_s: float
    kind: str
    """A key of `events.EVENTS`."""
    gateway: int = 0
    amount: float = 0.0
    """How long it lasts, or how far the clock is set, in seconds."""
    steps: int = 0
    """How many callbacks the gateway still runs before it happens."""
    state: str = ""
    """The state that one of the gateway's requests must enter before."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seed: int
    store: str
    gateways: int
    max_in_flight: int
    calls: tuple[PlannedCall, ...]
    events: tuple[Event, ...] = ()
    connects: tuple[str, ...] = ()
    treatments: tuple[Treatment, ...] = ()
    faults: tuple[Fault, ...] = ()
    verdicts: tuple[tuple[tuple[str, str], str], ...] = ()
    """The codes with which AlipayHK will reject requests."""
    is_calm: bool = False
    """Whether nothing is disturbed, and requests and responses only take time."""
    is_outage: bool = False
    """Whether AlipayHK cannot be reached at all while calls start."""
    clocks_s: tuple[float, ...] = ()
    """How far the clock of each gateway's host is ahead; empty if they share one that is right."""
    deaf_share: float | None = None
    """How often a notification of the database is lost; None if each arrives at once."""

    def __str__(self) -> str:
        """Return it in lines, without what is usual."""
        kinds = {
            "call": self.calls,
            "event": self.events,
            "connection": tuple(filter(None, self.connects)),
            "request": tuple(one for one in self.treatments if one != Treatment()),
            "operation": tuple(one for one in self.faults if one != Fault()),
        }
        head = f"{self.gateways} gateways, store {self.store}, at most {self.max_in_flight} in flight"
        if self.clocks_s:
            head += f", clocks ahead by {self.clocks_s} s, {self.deaf_share or 0:.0%} of notifications lost"
        return "\n".join([head, *(f"  {kind} {one}" for kind, ones in kinds.items() for one in ones)])


def drawn(seed: int) -> Plan:
    """Draw a plan."""
    dice = Random(seed)
    store = dice.choice(STORES)
    gateways = 1 if store in {"memory", "off"} else dice.choice((1, 2, 2, 3))
    orders = _orders(dice)
    calls = sorted(
        (_call(dice, dice.choice(orders), gateways) for _ in range(dice.randrange(4, 22))),
        key=lambda call: call.at_s,
    )
    kind = dice.random()
    for share, special in SPECIAL:
        if kind < share:
            return special(seed, store, gateways, dice)
        kind -= share
    if kind < CALM_SHARE:
        times = (0.001, 0.01, 0.3, 1.5)
        slow = tuple(
            Treatment(to_wallet_s=dice.choice(times), back_s=dice.choice(times)) for _ in range(60)
        )
        calls = [replace(call, cancel_s=0.0) for call in calls]
        return Plan(seed, store, gateways, 100, tuple(calls), treatments=slow, is_calm=True)
    share = dice.choice((0.0, 0.15, 0.4, 0.8))
    network = dice.choice((0.0, 0.2, 0.5))
    return Plan(
        seed,
        store,
        gateways,
        dice.choice((3, 100)),
        tuple(calls),
        tuple(sorted(_events(dice, gateways, store, calls), key=lambda event: event.at_s)),
        tuple(some(dice, network / 2, ("refused", "refused", "hang"), "") for _ in range(30)),
        tuple(_treatment(dice, network) for _ in range(60)),
        tuple(_fault(dice) if dice.random() < share else Fault() for _ in range(120))
        if dice.random() < 0.6
        else (),
        tuple((order.id, dice.choice(CODES)) for order in orders if dice.random() < 0.2),
    )


def _outage(seed: int, store: str, gateways: int, dice: Random) -> Plan:
    """Draw many calls to an AlipayHK that cannot be reached."""
    starts = [number * 0.02 for number in range(80)] + [7.5 + number * 0.1 for number in range(12)]
    calls = tuple(
        PlannedCall(at_s, dice.randrange(gateways), sync_order(number, f"u{number}"), 3.0, follow_ups=0)
        for number, at_s in enumerate(starts)
    )
    return Plan(seed, store, gateways, 100, calls, connects=("refused",) * 10_000, is_outage=True)


def _chatty(seed: int, store: str, gateways: int, dice: Random) -> Plan:
    """Draw many calls that share few connections, on which responses come again."""
    calls = tuple(
        PlannedCall(
            round(number * 0.21 + dice.random() / 5, 3), 0, sync_order(number, f"u{number}"), follow_ups=0
        )
        for number in range(20)
    )
    again = (0.0, 0.05, 0.12, 0.2, 0.4, 1.0)
    treatments = tuple(
        Treatment(
            to_wallet_s=dice.choice((0.001, 0.3)),
            answer=dice.choice(("whole", "again", "again", "twice")),
            again_s=dice.choice(again),
        )
        for _ in calls
    )
    return Plan(seed, store, gateways, 100, calls, treatments=treatments)


def _wrong_clock(seed: int, store: str, gateways: int, dice: Random) -> Plan:
    """Draw BindAccounts at a gateway whose clock is an hour off."""
    calls = tuple(
        PlannedCall(round(1.0 + number * dice.choice((0.02, 0.4, 1.0)), 3), 0, order, 5.0, follow_ups=0)
        for number, order in enumerate(map(bind_order, range(6)))
    )
    connects = tuple(some(dice, 0.3, ("refused",), "") for _ in range(10))
    events = (Event(0.5, "clock", 0, dice.choice((-3600.0, 3600.0))),)
    return Plan(seed, store, gateways, 100, calls, events, connects)


def _contended(seed: int, store: str, _: int, dice: Random) -> Plan:
    """Draw requests for one linkage at several gateways, a slow AlipayHK and a slow store."""
    store, gateways = ("sqlite" if store == "sqlite" else "shared"), dice.choice((2, 3))
    calls = tuple(
        PlannedCall(
            round(number * dice.choice((0.1, 0.7, 1.5)), 3),
            dice.randrange(gateways),
            sync_order(number % 5, "u", biz_time=number % 5),
            dice.choice((3.0, 10.0, 20.0, 20.0, 20.0)),
            follow_ups=2,
            moves=True,
        )
        for number in range(8)
    )
    states = ("CONNECTING", "BACKING_OFF", "BACKING_OFF")
    events = tuple(
        Event(
            dice.choice(calls).at_s,
            dice.choice(("freeze", "freeze", "freeze", "unrecordable", "kill")),
            dice.randrange(gateways),
            dice.choice((3.0, LEASE_S - 0.5, LEASE_S + 0.5, LEASE_S + 2.0)),
            dice.randrange(1, 9),
            dice.choice(states),
        )
        for _ in range(dice.choice((0, 1, 3, 4)))
    )
    answers, share = (0.001, 0.3, 1.5, 1.9, 3.0), dice.choice((0.0, 0.3, 0.5))
    treatments = tuple(
        Treatment(
            dice.choice(answers),
            some(dice, share, ("503", "503", "U"), ""),
            lost=dice.random() < share / 2,
            back_s=dice.choice((0.001, 0.9)),
            answer=some(dice, share, ("closed", "hang"), "whole"),
        )
        for _ in range(30)
    )
    connects = tuple(some(dice, share, ("refused",), "") for _ in range(30))
    slow = dice.choice((0.1, 0.4))
    faults = tuple(Fault(after_s=some(dice, slow, (1.2, 3.0, 4.5), 0.0)) for _ in range(80))
    return Plan(seed, store, gateways, 100, calls, events, connects, treatments, faults)


def _ordered(seed: int, store: str, gateways: int, dice: Random) -> Plan:
    """Draw many updates of one linkage, some of them with the same `biz_time`; nearly all succeed."""
    calls = tuple(
        PlannedCall(
            round(number * 0.4 + dice.choice((0.0, 0.2)), 3),
            dice.randrange(gateways),
            replace(sync_order(number, "u", dice.randrange(3)), content=dice.choice(("bind", "unbind"))),
            5.0,
            follow_ups=0,
        )
        for number in range(12)
    )
    store = dice.choice((store, "sqlite"))
    treatments = tuple(_treatment(dice, 0.1) for _ in calls)
    events = (Event(dice.choice(calls).at_s, "unrecordable", 0, LEASE_S + 2.0, 1, "RECORDING"),)
    return Plan(seed, store, gateways, 100, calls, dice.choice(((), events)), (), treatments)


def _doubtful(seed: int, store: str, gateways: int, dice: Random) -> Plan:
    """Draw requests whose first attempts are in doubt, and whose later ones are refused or rejected."""
    store = dice.choice((store, "sqlite", "shared"))
    orders = (sync_order(0, "u0"), bind_order(1), sync_order(2, "u2"), sync_order(3, "u3"))
    calls = tuple(
        PlannedCall(
            round(number * 0.7, 3),
            dice.randrange(gateways),
            orders[number % len(orders)],
            dice.choice((0.3, 1.0, 10.0)),
            follow_ups=1,
        )
        for number in range(16)
    )
    ends = ("closed", "cut", "last", "last", "last")
    treatments = tuple(
        Treatment(
            front_end=some(dice, 0.6, ("INVALID_SIGNATURE", "ACCESS_DENIED", "503", "U"), ""),
            answer=dice.choice(ends),
            share=0.5,
            odd_repeat=dice.random() < 0.7,
        )
        for _ in range(40)
    )
    share = dice.choice((0.4, 0.8))
    connects = tuple(some(dice, share, ("refused",), "") for _ in range(40))
    kills = tuple(
        Event(call.at_s, "kill", call.gateway, 0.0, 9, "CONNECTING")
        for call in calls[: dice.choice((0, 1, 2, 3))]
    )
    return Plan(seed, store, gateways, 100, calls, kills, connects, treatments)


def _crowded(seed: int, store: str, gateways: int, dice: Random) -> Plan:
    """Draw calls that queue for a linkage, or for capacity, and callers that leave at their turn."""
    one_linkage = dice.random() < 0.5
    every_s = 0.1 if one_linkage else 0.03
    calls = tuple(
        PlannedCall(
            round(number * 0.01 if number < 3 else 0.3 + number * every_s, 3),
            0,
            sync_order(number, "u" if one_linkage else f"u{number}", number),
            dice.choice((2.0, 5.0, 10.0)),
            follow_ups=0,
        )
        for number in range(18)
    )
    limited = tuple(Treatment(0.05 * number, LIMITED) for number in range(1, 4))
    slow = tuple(Treatment(dice.choice((0.1, 0.3))) for _ in range(30))
    leaves = tuple(
        Event(round(call.at_s + 0.2, 3), "leave", 0, 0.0, dice.randrange(2, 12), "RECORDING")
        for call in calls[4::2]
    )
    without_time = PlannedCall(2.0, 0, sync_order(len(calls), "other"), 0.09, follow_ups=0)
    at_most = 100 if one_linkage else 8
    return Plan(seed, store, 1, at_most, (*calls, without_time), leaves, (), limited + slow)


def _long_ago(seed: int, store: str, gateways: int, dice: Random) -> Plan:
    """Draw a few requests, and then a month without any, or a clock that is a month ahead."""
    store = dice.choice((store, "sqlite"))
    orders = (
        bind_order(0),
        bind_order(3),
        bind_order(4),
        sync_order(1, "u"),
        sync_order(2, "u", biz_time=1),
    )
    calls = tuple(
        PlannedCall(number * 0.1, dice.randrange(gateways), order, 5.0, follow_ups=0)
        for number, order in enumerate(orders)
    )
    event = dice.choice((Event(SPAN_S - 0.1, "month"), Event(SPAN_S / 2, "clock", 0, MONTH_S)))
    treatments = tuple(Treatment(answer=dice.choice(("whole", "hang"))) for _ in calls)
    return Plan(seed, store, gateways, 100, calls, (event,), (), treatments)


def _power_loss(seed: int, _: str, __: int, dice: Random) -> Plan:
    """Draw a request whose outcome the power loss that follows may undo, after an earlier one."""
    last_s = dice.choice(
        (2.6, 2.97, 2.99)
    )  # just before 3 s the ledger is probed before the outcome is synced
    order = dice.choice((sync_order(1, "u1"), sync_order(2, "u2"), bind_order(3)))
    calls = (PlannedCall(0.0, 0, sync_order(0, "u0"), 5.0), PlannedCall(last_s, 0, order, 5.0))
    power = Event(last_s + dice.choice((0.02, 0.05, 0.3, 0.9)), "power")
    return Plan(seed, "sqlite", 1, 100, calls, (power,))


SPECIAL: Final = (
    (0.01, _outage),
    (0.04, _chatty),
    (0.03, _wrong_clock),
    (0.09, _contended),
    (0.03, _long_ago),
    (0.04, _ordered),
    (0.05, _doubtful),
    (0.05, _crowded),
    (0.04, _power_loss),
)
"""Plans of a special kind, each with its share of all."""


def sync_order(number: int, user: str, biz_time: int = 0) -> Order:
    return Order(Api.SYNC_LINKAGE, f"r{number}", "bind", user, biz_time)


def bind_order(number: int) -> Order:
    return Order(Api.BIND_ACCOUNT, f"r{number}", "account")


def _orders(dice: Random) -> list[Order]:
    """Draw what callers want: few linkages, so that requests meet, and some contents under used ids."""
    orders = []
    users = dice.randrange(1, 4)
    for number in range(dice.randrange(2, 8)):
        name = f"r{number}"
        if dice.random() < 0.4:
            orders.append(Order(Api.BIND_ACCOUNT, name, "account"))
        else:
            user, biz_time = f"u{dice.randrange(users)}", dice.randrange(6)
            orders.append(Order(Api.SYNC_LINKAGE, name, "bind", user, biz_time))
        if dice.random() < 0.15:
            last = orders[-1]
            orders.append(Order(last.api, name, "other", last.user, last.biz_time))
    return orders


def _call(dice: Random, order: Order, gateways: int) -> PlannedCall:
    return PlannedCall(
        at_s=round(dice.choice((dice.random() * SPAN_S, dice.randrange(4) * 2.0)), 3),
        gateway=dice.randrange(gateways),
        order=order,
        left_s=dice.choice((0.12, 0.5, 1.0, 5.0, 5.0, 10.0, 10.0)),
        cancel_s=dice.choice((0.0, 0.0, 0.0, 0.0, 0.0, 0.0005, 0.002, 0.005, 0.02, 0.3, 1.0)),
        follow_ups=dice.choice((0, 1, 2, 4)),
        pause_s=dice.choice((0.0, 0.1, 1.0, 3.0)),
        moves=dice.random() < 0.5,
    )


def _events(dice: Random, gateways: int, store: str, calls: Sequence[PlannedCall]) -> list[Event]:
    """Draw faults and an operator's actions; most happen soon after a call has started."""
    kinds = ["kill", "kill", "freeze", "freeze", "suspend", "clock", "outage", "resolve", "stop", "month"]
    kinds += ["unrecordable", "unrecordable", "leave"]
    kinds += {"sqlite": ["power"] * 6, "shared": ["power", "power", "resolve"]}.get(store, [])
    events = []
    for _ in range(dice.choice((0, 1, 2, 3, 5))):
        kind = dice.choice(kinds)
        call = dice.choice(calls)
        at_s, gateway, state = call.at_s, call.gateway, dice.choice(STATES)
        steps = dice.randrange(1, 12) if state else dice.randrange(1, 60)
        if dice.random() < 0.2:
            at_s, gateway, steps, state = round(dice.random() * SPAN_S, 3), dice.randrange(gateways), 0, ""
        amounts = AMOUNTS.get(kind, (0.0,))
        events.append(Event(at_s, kind, gateway, dice.choice(amounts), steps, state))
        if kind in {"kill", "freeze", "power"} and dice.random() < 0.4:
            other_s = round(max(at_s + dice.choice((-0.5, 0.05, 0.5, 2.0)), 0.0), 3)
            events.append(Event(other_s, "clock", gateway, dice.choice(AMOUNTS["clock"])))
        if kind == "unrecordable" and dice.random() < 0.4:
            events.append(Event(round(at_s + dice.choice((0.3, 3.0)), 3), "stop", gateway))
        if kind == "freeze" and dice.random() < 0.3:
            events.append(Event(round(at_s + 12.0, 3), "resolve"))
    if any(event.kind == "clock" for event in events):
        events.append(Event(round(dice.choice((SPAN_S, SPAN_S / 2)), 3), "clock"))
    return events


def _treatment(dice: Random, share: float) -> Treatment:
    slow, odd = (0.001, 0.001, 0.01, 0.3, 2.0), dice.random() < 0.5
    if dice.random() >= share:
        return Treatment(to_wallet_s=dice.choice(slow), back_s=dice.choice(slow), odd_repeat=odd)
    return Treatment(
        to_wallet_s=dice.choice((*slow, 4.5)),
        front_end=some(dice, 0.3, FRONT_ENDS, ""),
        lost=dice.random() < 0.2,
        back_s=dice.choice((*slow, 4.5)),
        answer=some(dice, 0.8, ANSWERS, "whole"),
        share=round(dice.random(), 3),
        again_s=dice.choice((0.0, 0.001, 0.05, 0.11, 1.0)),
        odd_repeat=odd,
    )


def _fault(dice: Random) -> Fault:
    slow = (0.0, 0.0, 0.3, 1.2, 3.0, LEASE_S + 1.0)
    return Fault(
        before_s=dice.choice(slow),
        after_s=dice.choice(slow),
        kind=dice.choice(("", "gone", "busy", "silent", "full")),
    )


def some(dice: Random, share: float, values: tuple[T, ...], usual: T) -> T:
    return dice.choice(values) if dice.random() < share else usual
