"""The simulation with a ledger on PostgreSQL finds nothing in the gateway, and repeats itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation import postgres_store
from tests.simulation.events import EVENTS
from tests.simulation.mutants import MUTANTS
from tests.simulation.plan import drawn
from tests.simulation.postgres_mutants import POSTGRES_MUTANTS
from tests.simulation.postgres_plan import on_postgres
from tests.simulation.postgres_session import server
from tests.simulation.simulator import Simulator, simulator

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (
    *(*range(30), 86, 192, 298, 539, 998, 2699, 3341, 3617, 6184, 7280, 11881),
    *(32460, 32635, 32703, 33318, 39521, 66512),
)
"""Some seeds, and those that have found a fault of the gateway or of the checker."""
RUN_TEST = """
import sys, pytest
from tests.simulation.postgres_mutants import POSTGRES_MUTANTS
POSTGRES_MUTANTS[sys.argv[1]].make(pytest.MonkeyPatch())
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", sys.argv[2]]))
"""
REACHED = [name for name, mutant in POSTGRES_MUTANTS.items() if not mutant.test]


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


@pytest.mark.parametrize("mutant", ["", "now"])
def test_a_seed_has_the_same_trace_on_another_server(simulation: Simulator, mutant: str) -> None:
    plan = simulation.plan(POSTGRES_MUTANTS["now"].seed)
    simulation.run(plan)
    run = simulation.run(plan, mutant=mutant, tracing=True)
    command = (sys.executable, "-m", "tests.simulation.simulate", "--ledger", "postgres", "--long")
    environ = {**os.environ, "PYTHONHASHSEED": "1"}
    there = subprocess.run(
        (*command, "--seed", str(plan.seed), "--mutants", mutant),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environ,
    )
    assert len(run.trace) > 100
    assert bool(run.findings) is bool(mutant)
    findings = [str(finding) for finding in run.findings] or ["nothing is broken"]
    assert "\n".join([str(plan), *run.trace, *findings, ""]) == there.stdout


@pytest.mark.parametrize("name", REACHED)
def test_a_mutant_is_noticed(simulation: Simulator, name: str) -> None:
    plan = simulation.plan(POSTGRES_MUTANTS[name].seed)
    assert simulation.run(plan).findings == []
    assert simulation.run(plan, mutant=name).findings, (
        f"{POSTGRES_MUTANTS[name].what}: not noticed any more"
    )


@pytest.mark.parametrize("name", sorted(POSTGRES_MUTANTS.keys() - REACHED))
def test_a_mutant_that_no_plan_reaches_is_noticed_by_its_test(name: str) -> None:
    command = (sys.executable, "-c", RUN_TEST, name, POSTGRES_MUTANTS[name].test)
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (ran.returncode, "1 failed" in ran.stdout) == (pytest.ExitCode.TESTS_FAILED, True), ran.stdout


def test_an_edit_that_replaces_no_function_is_refused(
    simulation: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = "CREATE FUNCTION sim.alipayhk_wake(bigint) RETURNS void LANGUAGE sql AS ''"
    monkeypatch.setattr(postgres_store, "EDITS", [added])
    with pytest.raises(LookupError):
        simulation.run(simulation.plan(0))


def test_names_of_mutants_are_unique() -> None:
    assert not MUTANTS.keys() & POSTGRES_MUTANTS.keys()
