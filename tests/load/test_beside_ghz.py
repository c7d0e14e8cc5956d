"""Beside ghz, both in a closed loop, against a real gateway."""

from __future__ import annotations

import statistics

import pytest

from bench.load import found_ghz, ours, theirs

ROUNDS = 5


@pytest.mark.full
def test_the_rate_is_within_a_tenth_of_ghzs_or_better(plain: str) -> None:
    ghz = found_ghz()
    assert ghz is not None, "there is no ghz: run `make .tools/bin/ghz`"
    ratios = []
    for _ in range(ROUNDS):
        beside = theirs(ghz, plain, 50, 3)
        mine = ours(plain, 50, 3, 1)
        assert mine.errors == 0
        ratios.append(mine.rate / beside.rate)
    assert statistics.median(ratios) >= 0.9, ratios
