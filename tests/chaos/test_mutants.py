"""A chaos run notices gateways with one rule switched off."""

from __future__ import annotations

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.mutant_table import noticed
from tests.chaos.mutants import MUTANTS
from tests.chaos.world import Options


async def test_a_gateway_that_undoes_requests_in_doubt_is_noticed() -> None:
    report = await noticed(Options(("answer",), rate=60.0, answer_share=0.5, mutant="undo"))
    assert report is not None


@pytest.mark.full
@pytest.mark.parametrize("ledger", FAULTS)
@pytest.mark.parametrize("name", MUTANTS)
async def test_every_mutant_is_noticed_under_all_faults(name: str, ledger: str) -> None:
    options = Options(FAULTS[ledger], ledger, gateways=2, workers=3, kills=500, rate=60.0, mutant=name)
    assert await noticed(options) is not None, f"{name}: {MUTANTS[name].what}"
