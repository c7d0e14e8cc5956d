"""The simulation with a ledger on PostgreSQL finds nothing in the gateway, and repeats itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.events import EVENTS
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import drawn
from tests.simulation.postgres_mutants import POSTGRES_MUTANTS
from tests.simulation.postgres_plan import on_postgres
from tests.simulation.postgres_session import server
from tests.simulation.simulator import Simulator, simulator

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (*range(30), 86, 192, 298)
"""Some seeds, and those that have found a fault of the gateway or of the checker."""


@pytest.fixture(scope="module")
def simulation() -> Iterator[Simulator]:
    with server() as postgres, simulator(postgres) as one:
        yield one


def test_no_seed_breaks_an_invariant(simulation: Simulator) -> None:
    failed = {seed: found for seed in SEEDS if (found := simulation.run(simulation.plan(seed)).findings)}
    assert failed == {}


def test_plans_contain_every_kind_of_event_two_and_three_hosts_and_wrong_clocks() -> None:
    drawings = [on_postgres(drawn(seed)) for seed in range(400)]
    assert {event.kind for plan in drawings for event in plan.events} == set(EVENTS)
    assert {plan.gateways for plan in drawings} == {2, 3}
    assert {plan.store for plan in drawings} == {"postgres"}
    assert all(len(plan.clocks_s) == plan.gateways for plan in drawings)
    assert any(plan.deaf_share is None for plan in drawings)


def test_a_seed_has_the_same_trace_on_another_server(simulation: Simulator) -> None:
    plan = next(plan for plan in map(simulation.plan, range(100)) if len(plan.events) > 3)
    here = simulation.run(plan, tracing=True).trace
    command = (sys.executable, "-m", "tests.simulation.simulate", "--ledger", "postgres", "--long")
    environ = {**os.environ, "PYTHONHASHSEED": "1"}
    there = subprocess.run(
        (*command, "--seed", str(plan.seed)),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environ,
    )
    assert len(here) > 100
    assert "\n".join([str(plan), *here, "nothing is broken\n"]) == there.stdout


def test_names_of_mutants_are_unique() -> None:
    assert not MUTANTS.keys() & POSTGRES_MUTANTS.keys()
