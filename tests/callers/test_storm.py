"""Tests of the comparison in `storm`: it finds wrong outcomes, and accepts correct ones."""

from __future__ import annotations

import json

import pytest

from tests.callers.storm import compare_lines

ONCE = {"effects": 1, "repeats": 0}
TWICE = {"effects": 1, "repeats": 1}
REJECTED = {"effects": 0, "repeats": 0}


def line(method: str, outcome: str) -> str:
    return json.dumps({"method": method, "request_id": "a", "code": "", "reason": "", "outcome": outcome})


@pytest.mark.parametrize(
    ("method", "outcome", "record"),
    [
        ("SyncLinkage", "OK", ONCE),
        ("SyncLinkage", "OK", TWICE),
        ("BindAccount", "OK", ONCE),
        ("BindAccount", "rejected", None),
        ("BindAccount", "rejected", REJECTED),
        ("SyncLinkage", "not_sent", None),
        ("SyncLinkage", "unknown", None),
        ("SyncLinkage", "unknown", ONCE),
    ],
)
def test_a_correct_outcome_is_accepted(method: str, outcome: str, record: dict[str, int] | None) -> None:
    comparison = compare_lines(line(method, outcome), {method: {"a": record} if record else {}})
    assert comparison.wrong == []
    assert comparison.outcomes == {outcome: 1}


@pytest.mark.parametrize(
    ("method", "outcome", "record"),
    [
        ("SyncLinkage", "OK", None),
        ("SyncLinkage", "OK", REJECTED),
        ("SyncLinkage", "rejected", ONCE),
        ("SyncLinkage", "not_sent", ONCE),
        ("BindAccount", "OK", TWICE),
        ("BindAccount", "unknown", TWICE),
        ("BindAccount", "sent", ONCE),
        ("BindAccount", "", None),
    ],
)
def test_a_wrong_outcome_is_found(method: str, outcome: str, record: dict[str, int] | None) -> None:
    comparison = compare_lines(line(method, outcome), {method: {"a": record} if record else {}})
    assert len(comparison.wrong) == 1
