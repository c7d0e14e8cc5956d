"""Plans for a ledger on PostgreSQL: those of the seeds on two or three hosts, and some special ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Final

from .gateway import LEASE_S, WINDOW_S
from .network import Treatment
from .plan import AMOUNTS, SPAN_S, STATES, Event, Plan, PlannedCall, bind_order, some, sync_order
from .store import Fault

CLOCKS_S: Final = (0.0, 0.0, 0.2, -0.2, 3.0, -3.0, 8.0, -8.0, 250.0, -250.0, 3600.0)
"""How far the clock of a gateway's host may be ahead."""
KINDS: Final = (
    *("database freeze", "database freeze", "database crash", "database crash", "cut off", "cut off"),
    *("database clock", "disconnect", "deaf", "resolve"),
)
"""Faults of the server, or of the network to it, and what an operator does."""
DEAF: Final = (0.0, 0.0, 0.1, 1.0)
TWICE_SHARE: Final = 0.2


def on_postgres(plan: Plan) -> Plan:
    """Return the plan for two or three hosts and a PostgreSQL server, with faults of that server."""
    dice = Random(f"hosts {plan.seed}")
    gateways = max(plan.gateways, dice.choice((2, 2, 3)))
    kind = dice.random()
    for share, special in SPECIAL:
        if kind < share:
            return _placed(special(plan.seed, gateways, dice), gateways, dice)
        kind -= share
    calls = plan.calls
    if plan.gateways == 1:
        calls = tuple(replace(call, gateway=dice.choice((0, dice.randrange(gateways)))) for call in calls)
    if plan.is_calm:
        return _placed(replace(plan, calls=calls), gateways, dice)
    if dice.random() < TWICE_SHARE:
        calls = _twice(calls, gateways, dice)
    plan = replace(plan, calls=calls, deaf_share=dice.choice(DEAF))
    return _placed(_with(plan, _faults(dice, gateways, calls)), gateways, dice)


def _placed(plan: Plan, gateways: int, dice: Random) -> Plan:
    clocks_s = tuple(dice.choice(CLOCKS_S) for _ in range(gateways))
    # A gateway whose clock is outside the window believes no response.
    is_calm = plan.is_calm and max(map(abs, clocks_s)) < WINDOW_S
    return replace(plan, store="postgres", gateways=gateways, clocks_s=clocks_s, is_calm=is_calm)


def _with(plan: Plan, events: Sequence[Event]) -> Plan:
    return replace(plan, events=tuple(sorted((*plan.events, *events), key=lambda event: event.at_s)))


def _twice(calls: Sequence[PlannedCall], gateways: int, dice: Random) -> tuple[PlannedCall, ...]:
    """Let some callers call two gateways at once."""
    again = [
        replace(
            call,
            at_s=round(call.at_s + dice.choice((0.0, 0.001, 0.05)), 3),
            gateway=dice.randrange(gateways),
        )
        for call in calls
        if dice.random() < 0.5
    ]
    return tuple(sorted((*calls, *again), key=lambda call: call.at_s))


def _faults(dice: Random, gateways: int, calls: Sequence[PlannedCall]) -> list[Event]:
    """Draw faults of the server; most happen soon after a call has started."""
    events = []
    for _ in range(dice.choice((0, 0, 1, 1, 2, 4))):
        kind, call, state = dice.choice(KINDS), dice.choice(calls), dice.choice(STATES)
        gateway, amount = dice.choice((call.gateway, dice.randrange(gateways))), _amount(dice, kind)
        steps = dice.randrange(1, 12) if state else dice.randrange(1, 60)
        events.append(Event(call.at_s, kind, gateway, amount, steps, state))
        if kind == "cut off" and dice.random() < 0.3:
            events.append(Event(round(call.at_s + LEASE_S + 1.0, 3), "resolve"))
        if kind == "database clock" and dice.random() < 0.5:
            events.append(Event(call.at_s, "kill", call.gateway, 0.0, steps + 9, state))
    return events


def _amount(dice: Random, kind: str) -> float:
    return dice.choice(AMOUNTS.get(kind, (0.0,)))


# -- special kinds


def _in_line(seed: int, gateways: int, dice: Random) -> Plan:
    """Draw many requests for one linkage, which wait in all gateways, without faults of the server."""
    every_s, count = dice.choice((0.02, 0.2)), dice.choice((6, 12, 18))
    biz_times = dice.sample(range(count), count)
    calls = tuple(
        PlannedCall(
            round(number * every_s, 3),
            dice.randrange(gateways),
            sync_order(number, "u", biz_time),
            dice.choice((1.0, 5.0, 20.0, 20.0)),
            some(dice, 0.1, (0.05, 0.3, 1.0), 0.0),
            follow_ups=0,
        )
        for number, biz_time in enumerate(biz_times)
    )
    slow = tuple(Treatment(dice.choice((0.05, 0.3, 0.6))) for _ in range(40))
    plan = Plan(seed, "", gateways, 100, calls, treatments=slow, deaf_share=dice.choice((None, 0.0, 1.0)))
    return _with(plan, [Event(round(dice.random() * 2.0, 3), "resolve")])


def _asked_twice(seed: int, gateways: int, dice: Random) -> Plan:
    """Draw requests in doubt, and ties, that several gateways ask for at once, some of them slowly."""
    orders = [sync_order(number, "u", dice.randrange(3)) for number in range(4)]
    in_pairs = dice.random() < 0.5
    calls = [
        PlannedCall(
            round(number * dice.choice((0.3, 0.9)) + gateway * dice.choice((0.0, 0.001, 0.003)), 3),
            gateway,
            orders[number // 2] if in_pairs else dice.choice(orders),
            0.3 if in_pairs and number % 2 == 0 else dice.choice((0.3, 1.0, 5.0)),
            follow_ups=1,
        )
        for number in range(8)
        for gateway in range(gateways)
    ]
    calls.sort(key=lambda call: call.at_s)
    answers = tuple(Treatment(answer=dice.choice(("closed", "closed", "whole"))) for _ in range(40))
    slow = tuple(Fault(some(dice, 0.3, (0.1, 0.4, 0.9), 0.0)) for _ in range(80))
    return Plan(seed, "", gateways, 100, tuple(calls), treatments=answers, faults=slow, deaf_share=0.0)


def _set_back(seed: int, gateways: int, dice: Random) -> Plan:
    """Draw requests at a server whose clock is an hour ahead, and a gateway that is killed then.

    In half of the plans nobody asks again for a request that waited there.
    """
    is_left = dice.random() < 0.5
    calls = tuple(
        PlannedCall(
            round(1.0 + number * 0.1, 3),
            dice.randrange(gateways),
            sync_order(number, "u", number)
            if is_left
            else dice.choice((sync_order(number % 4, "u", number % 4), bind_order(9))),
            5.0 if is_left else dice.choice((1.0, 5.0)),
            follow_ups=0 if is_left else 1,
        )
        for number in range(10)
    )
    slow = tuple(
        Treatment(dice.choice((0.3, 2.0)), answer=dice.choice(("whole", "hang"))) for _ in range(20)
    )
    killed = dice.choice(calls[:5])
    states = ("CONNECTING", "WAITING_FOR_OTHER", "WAITING_FOR_OTHER", "QUEUED_FOR_LINKAGE")
    events = [
        Event(0.5, "database clock", 0, 3600.0),
        Event(killed.at_s, "kill", killed.gateway, 0.0, dice.randrange(1, 20), dice.choice(states)),
        Event(dice.choice((2.5, 4.0, SPAN_S)), "database clock"),
    ]
    return _with(Plan(seed, "", gateways, 100, calls, treatments=slow, deaf_share=0.0), events)


def _crash_after_outcome(seed: int, gateways: int, dice: Random) -> Plan:
    """Draw a few requests, and a crash of the server soon after their outcomes were recorded."""
    calls = tuple(
        PlannedCall(round(number * 0.3, 3), dice.randrange(gateways), order, 5.0)
        for number, order in enumerate(
            (bind_order(0), sync_order(1, "u"), bind_order(2), sync_order(3, "u", 1))
        )
    )
    after_s = dice.choice((0.02, 0.05, 0.2, 0.5))
    crash = Event(round(dice.choice(calls).at_s + after_s, 3), "database crash", 0, 0.5)
    return _with(Plan(seed, "", gateways, 100, calls, deaf_share=0.0), [crash])


SPECIAL: Final = ((0.08, _in_line), (0.06, _asked_twice), (0.04, _set_back), (0.03, _crash_after_outcome))
"""Plans of a special kind, each with its share of all."""
