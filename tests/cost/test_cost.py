"""A request costs few calls of functions and few tasks: what a change adds to them must be worth it.

Counts hardly depend on the machine. `python -m tests.cost.measure` shows them, COST_WHERE=1 also where.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cost.measure import counts_of

CALLS = "calls outside the event loop"
MOST = {CALLS: 1_030.0, "tasks": 3.5, "labels": 0.2, "call_soon": 24.0, "call_at": 3.2}
"""The most of each per SyncLinkage with the SQLite ledger; what runs once a second adds a little."""


def excess(counts: dict[str, float]) -> set[str]:
    return {name for name, most in MOST.items() if counts.get(name, 0.0) > most}


def test_a_request_costs_few_calls_and_tasks(tmp_path: Path) -> None:
    counts = counts_of(tmp_path, LEDGER_URL=f"sqlite:///{tmp_path}/ledger.db")
    assert excess(counts) == set(), counts


@pytest.mark.parametrize(("extra", "expected"), [("labels", "labels"), ("task", "tasks")])
def test_one_more_of_each_is_noticed(tmp_path: Path, extra: str, expected: str) -> None:
    assert expected in excess(counts_of(tmp_path, extra=extra, LEDGER_URL="memory:"))


def test_a_refusal_costs_less_than_a_request(tmp_path: Path) -> None:
    for name in ("served", "refused"):
        (tmp_path / name).mkdir()
    served = counts_of(tmp_path / "served", LEDGER_URL="memory:")
    refused = counts_of(tmp_path / "refused", valid=False, LEDGER_URL="memory:")
    assert refused[CALLS] < 0.6 * served[CALLS]
