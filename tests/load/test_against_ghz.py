"""Compare the load tester with ghz, both in a closed loop, against a real gateway."""

from __future__ import annotations

import statistics

import pytest

from bench.load import found_ghz, ours, theirs

ROUNDS = 5


@pytest.mark.full
def test_the_rate_is_at_least_90_per_cent_of_the_rate_of_ghz(plain: str) -> None:
    ghz = found_ghz()
    assert ghz is not None, "ghz is not installed: run `make .tools/bin/ghz`"
    ratios = []
    for _ in range(ROUNDS):
        by_ghz = theirs(ghz, plain, 50, 3)
        by_load_tester = ours(plain, 50, 3, 1)
        assert by_load_tester.errors == 0
        ratios.append(by_load_tester.rate / by_ghz.rate)
    assert statistics.median(ratios) >= 0.9, ratios
