"""A chaos run finds every gateway with one rule switched off."""

from __future__ import annotations

import pytest

from tests.chaos.chaos import run
from tests.chaos.checker import INVARIANTS, counts
from tests.chaos.mutants import MUTANTS
from tests.chaos.world import Options

SEEDS = 3


def test_every_mutant_names_invariants_that_exist() -> None:
    names = {invariant.name for invariant in INVARIANTS}
    assert all(mutant.found_as and mutant.found_as <= names for mutant in MUTANTS.values())


@pytest.mark.full
@pytest.mark.parametrize("name", MUTANTS)
async def test_a_mutant_is_found(name: str) -> None:
    for seed in range(SEEDS):
        options = Options(("kill", "answer"), gateways=2, kills=8, rate=40.0, seed=seed, mutant=name)
        report = await run(options)
        found = {invariant for invariant, count in counts(report.findings).items() if count}
        if found & MUTANTS[name].found_as:
            return
    pytest.fail(f"mutant {name} ({MUTANTS[name].what}) passed {SEEDS} runs:\n{report}")
