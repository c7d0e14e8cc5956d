"""Gateways that are killed under load, with other faults beside, lose, double and mix up nothing."""

from __future__ import annotations

import pytest

from tests.chaos.chaos import run
from tests.chaos.world import Options

SURVIVED = ("kill", "answer", "lock", "disk")
"""The faults of the run in the gate; `make chaos` has them all."""


@pytest.mark.parametrize(("gateways", "workers"), [(2, 1), (1, 3)], ids=["two gateways", "three workers"])
async def test_twenty_kills_under_load_lose_double_and_mix_up_nothing(gateways: int, workers: int) -> None:
    report = await run(Options(SURVIVED, gateways, workers, kills=10, rate=50.0, seed=1))
    assert report.is_clean, f"{report}"
    assert len(report.history.requests) > 100, f"{report}"
    assert report.outcomes["OK"] > len(report.history.requests) / 2, f"{report}"
