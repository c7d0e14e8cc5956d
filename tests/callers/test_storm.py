"""The judge of the storm is itself judged: what is wrong is found, and what is right is not."""

from __future__ import annotations

import json

import pytest

from tests.callers.storm import judge

ONCE = {"effects": 1, "repeats": 0}
TWICE = {"effects": 1, "repeats": 1}
REFUSED = {"effects": 0, "repeats": 0}


def reported(method: str, outcome: str) -> str:
    return json.dumps({"method": method, "request_id": "a", "code": "", "reason": "", "outcome": outcome})


@pytest.mark.parametrize(
    ("method", "outcome", "known"),
    [
        ("SyncLinkage", "OK", ONCE),
        ("SyncLinkage", "OK", TWICE),
        ("BindAccount", "OK", ONCE),
        ("BindAccount", "rejected", None),
        ("BindAccount", "rejected", REFUSED),
        ("SyncLinkage", "not_sent", None),
        ("SyncLinkage", "unknown", None),
        ("SyncLinkage", "unknown", ONCE),
    ],
)
def test_right(method: str, outcome: str, known: dict[str, int] | None) -> None:
    found = judge(reported(method, outcome), {method: {"a": known} if known else {}})
    assert found.wrong == []
    assert found.reported == {outcome: 1}


@pytest.mark.parametrize(
    ("method", "outcome", "known"),
    [
        ("SyncLinkage", "OK", None),
        ("SyncLinkage", "OK", REFUSED),
        ("SyncLinkage", "rejected", ONCE),
        ("SyncLinkage", "not_sent", ONCE),
        ("BindAccount", "OK", TWICE),
        ("BindAccount", "unknown", TWICE),
        ("BindAccount", "sent", ONCE),
        ("BindAccount", "", None),
    ],
)
def test_wrong(method: str, outcome: str, known: dict[str, int] | None) -> None:
    found = judge(reported(method, outcome), {method: {"a": known} if known else {}})
    assert len(found.wrong) == 1
