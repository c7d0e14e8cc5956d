"""Beside ghz, both in a closed loop, against a real gateway."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

import pytest

from bench.load import GHZ, found_ghz, ours, theirs
from tests.peers.processes import environment, run

ROUNDS = 5


def installed_ghz(directory: Path) -> str:
    """Install it where this test alone sees it."""
    go = shutil.which("go")
    if go is None:
        pytest.fail("there is no ghz, and no Go to install it with")
    run(go, "install", GHZ, env={**environment(), "GOBIN": str(directory)}, patience_s=900)
    return str(directory / "ghz")


@pytest.mark.full
def test_the_rate_is_within_a_tenth_of_ghzs_or_better(plain: str, tmp_path: Path) -> None:
    ghz = found_ghz() or installed_ghz(tmp_path)
    ratios = []
    for _ in range(ROUNDS):
        beside = theirs(ghz, plain, 50, 3)
        mine = ours(plain, 50, 3, 1)
        assert mine.errors == 0
        ratios.append(mine.rate / beside.rate)
    assert statistics.median(ratios) >= 0.9, ratios
