"""The simulation finds nothing in the gateway, reaches what it is meant to reach, and repeats itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.delivery.flight import Flight
from tests.simulation import plan as plans
from tests.simulation.events import EVENTS, SERVER_EVENTS
from tests.simulation.mutants import MUTANTS, edited
from tests.simulation.network import ANSWERS, FRONT_ENDS
from tests.simulation.plan import drawn
from tests.simulation.simulator import Simulator, simulator
from tests.simulation.world import World

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (*range(80), 13779, 20984, 25902, 32340, 37143, 39717, 44459, 65737)
"""Some seeds, and those that have found a fault of the gateway or of the checker."""
REASONS = {
    "BIZ_TIME_TIE",
    "CIRCUIT_OPEN",
    "CONNECTION_LOST",
    "DEADLINE_TOO_SHORT",
    "LEDGER_UNAVAILABLE",
    "LINKAGE_BUSY",
    "OK",
    "OUTCOME_IN_DOUBT",
    "OVERLOADED",
    "REQUEST_ID_REUSED",
    "REQUEST_IN_PROGRESS",
    "RESPONSE_REPLAYED",
    "SHUTTING_DOWN",
    "STALE_BIZ_TIME",
    "UPSTREAM_TIMEOUT",
    "UPSTREAM_UNREACHABLE",
    "WALLET_REJECTED",
}
"""What callers of these seeds must be told at least once."""


@pytest.fixture(scope="module")
def simulation() -> Iterator[Simulator]:
    with simulator() as one:
        yield one


def test_no_seed_breaks_an_invariant_and_together_they_reach_most_reasons(
    simulation: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: Counter[str] = Counter()
    run = World.run

    def counted(world: World) -> World:
        result = run(world)
        reasons.update(made.report.reason for made in world.calls if made.report)
        return result

    monkeypatch.setattr(World, "run", counted)
    failed = {seed: found for seed in SEEDS if (found := simulation.run(drawn(seed)).findings)}
    assert failed == {}
    assert reasons.keys() >= REASONS


def test_plans_contain_every_kind_of_store_event_and_fault() -> None:
    drawings = [drawn(seed) for seed in range(400)]
    seen: dict[str, set[Any]] = {
        "store": {plan.store for plan in drawings},
        "event": {event.kind for plan in drawings for event in plan.events},
        "answer": {one.answer for plan in drawings for one in plan.treatments},
        "front end": {one.front_end for plan in drawings for one in plan.treatments},
        "fault": {fault.kind for plan in drawings for fault in plan.faults},
        "gateways": {plan.gateways for plan in drawings},
    }
    assert seen == {
        "store": {"shared", "sqlite", "memory", "off"},
        "event": EVENTS.keys() - SERVER_EVENTS.keys(),
        "answer": {*ANSWERS, "whole"},
        "front end": {*FRONT_ENDS, ""},
        "fault": {"", "gone", "busy", "silent", "full"},
        "gateways": {1, 2, 3},
    }


@pytest.mark.parametrize("store", ["shared", "sqlite", "memory", "off"])
def test_a_seed_has_the_same_trace_in_another_process(simulation: Simulator, store: str) -> None:
    seed = next(seed for seed in range(100) if (one := drawn(seed)).store == store and one.events)
    here = simulation.run(drawn(seed), tracing=True).trace
    command = (sys.executable, "-m", "tests.simulation.simulate", "--seed", str(seed), "--long")
    environ = {**os.environ, "PYTHONHASHSEED": "1"}
    there = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environ)
    assert len(here) > 100
    assert "\n".join([str(drawn(seed)), *here, "nothing is broken\n"]) == there.stdout


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(simulation: Simulator, name: str) -> None:
    plan = drawn(MUTANTS[name].seed)
    assert simulation.run(plan, mutant=name).findings, f"{MUTANTS[name].what}: not noticed any more"
    assert simulation.run(plan).findings == []


@pytest.mark.parametrize("before", ["no such piece", "self"], ids=["absent", "twice"])
def test_an_edit_refuses_a_piece_that_does_not_occur_once(
    monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    with pytest.raises(LookupError):
        edited(Flight, "cancel", before, "")(monkeypatch)


def test_a_failing_plan_is_made_shorter_and_fails_alike(simulation: Simulator) -> None:
    plan = drawn(MUTANTS["dedup"].seed)
    invariant = simulation.run(plan, mutant="dedup").findings[0].invariant
    shorter = simulation.shortened(plan, invariant, "dedup")
    assert simulation.fails_alike(shorter, invariant, "dedup")
    assert len(shorter.calls) == 1
    assert (shorter.events, shorter.treatments, shorter.faults) == ((), (), ())


def test_a_trace_names_the_states_of_a_request(simulation: Simulator) -> None:
    plan = replace(drawn(1), events=(), faults=(), treatments=(), connects=(), store="sqlite")
    trace = "\n".join(simulation.run(plan, tracing=True).trace)
    for line in (
        "CLAIMING -> CONNECTING",
        "AWAITING_ANSWER -> RECORDING",
        "ledger claim",
        "AlipayHK decides",
    ):
        assert line in trace


def test_special_plans_are_a_share_of_all() -> None:
    assert sum(share for share, _ in plans.SPECIAL) + plans.CALM_SHARE < 0.5
