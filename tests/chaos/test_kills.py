"""Gateways that are killed under load, among other faults, lose, double and mix up no request."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.chaos import run
from tests.chaos.world import POSTGRES, Options

SURVIVED = ("kill", "answer", "lock", "disk")
"""The faults of the runs here; `make chaos` uses all of them."""


async def check(faults: tuple[str, ...] = SURVIVED, **options: Any) -> None:
    report = await run(Options(faults, rate=40.0, seed=1, **options))
    assert report.is_clean, f"{report}"
    assert len(report.history.requests) > 100, f"{report}"
    assert report.outcomes["OK"] > len(report.history.requests) / 2, f"{report}"


async def test_ten_kills_of_two_gateways_on_one_ledger() -> None:
    await check(gateways=2, workers=1, kills=10)


async def test_kills_of_two_gateways_and_their_database() -> None:
    await check(("kill", "answer", "server", "freeze"), ledger=POSTGRES, gateways=2, workers=1, kills=6)


@pytest.mark.full
async def test_kills_of_a_gateway_with_three_workers() -> None:
    await check(gateways=1, workers=3, kills=10)
