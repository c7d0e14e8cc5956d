"""Gateways that are killed under load, among other faults, lose, double and mix up no request."""

from __future__ import annotations

import pytest

from tests.chaos.chaos import run
from tests.chaos.world import Options

SURVIVED = ("kill", "answer", "lock", "disk")
"""The faults of the runs here; `make chaos` uses all of them."""


async def check(gateways: int, workers: int, kills: int) -> None:
    report = await run(Options(SURVIVED, gateways, workers, kills, rate=40.0, seed=1))
    assert report.is_clean, f"{report}"
    assert len(report.history.requests) > 100, f"{report}"
    assert report.outcomes["OK"] > len(report.history.requests) / 2, f"{report}"


async def test_ten_kills_of_two_gateways_on_one_ledger() -> None:
    await check(gateways=2, workers=1, kills=10)


@pytest.mark.full
async def test_kills_of_a_gateway_with_three_workers() -> None:
    await check(gateways=1, workers=3, kills=10)
