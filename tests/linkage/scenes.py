"""The scenarios that every language's caller goes through, as Python goes through them."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format

from alipayhk_linkage import BindAccountRequest, LinkageError, SyncLinkageRequest
from tests.linkage.where import Where

FILE: Final = Path(__file__).resolve().parents[2] / "clients" / "scenarios.json"
SCENARIOS: Final[list[dict[str, Any]]] = json.loads(FILE.read_text("utf-8"))["scenarios"]
REQUESTS: Final = {"SyncLinkage": SyncLinkageRequest, "BindAccount": BindAccountRequest}
STEP: Final = {"method", "request", "deadline_ms", "answers", "expect"}
EXPECT: Final = {"code", "reason", "outcome", "retry", "metadata", "violations", "response"} | {
    "took_ms_min",
    "took_ms_max",
}
DEADLINE_MS: Final = 10_000

Call = Callable[[Any, float], Awaitable[Any]]
"""Calls the RPC that a request is of, within so many seconds."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended, in the file's words."""

    code: str
    reason: str = ""
    outcome: str = "OK"
    retry: str = ""
    metadata: Any = None
    violations: Any = None
    response: Any = None


async def play(scenario: dict[str, Any], where: Where, call: Call) -> None:
    """Go through a scenario's steps; each must end as it says."""
    text = json.dumps(scenario).replace("${run}", where.run)
    for step in json.loads(text)["steps"]:
        assert step.keys() <= STEP
        assert step["expect"].keys() <= EXPECT
        if answers := step.get("answers"):
            ask_for(where, step["method"], answers)
        request = json_format.ParseDict(step["request"], REQUESTS[step["method"]]())
        began = time.monotonic()
        ended = await end_of(call(request, step.get("deadline_ms", DEADLINE_MS) / 1000))
        check(ended, (time.monotonic() - began) * 1000, **step["expect"])


def ask_for(where: Where, api: str, faults: list[str]) -> None:
    """Ask the sandbox for its next answers."""
    asked = {"answers": [{"fault": fault} for fault in faults], "api": api}
    with urllib.request.urlopen(f"{where.console}/__sandbox/answers", json.dumps(asked).encode()):
        pass


async def end_of(calling: Awaitable[Any]) -> Ended:
    """Wait for a call, and tell how it ended."""
    try:
        response = await calling
    except LinkageError as error:
        violations = sorted(fault.field for fault in error.violations)
        reported = (error.code.name, error.reason, error.outcome, error.retry)
        return Ended(*reported, dict(error.metadata), violations)
    return Ended("OK", response=json_format.MessageToDict(response))


def check(ended: Ended, took_ms: float, **expected: Any) -> None:
    """Compare what came of a call with what had to."""
    if "code" in expected:
        assert ended.code == expected["code"], ended
    for name in ("reason", "outcome", "retry", "violations"):
        if name in expected:
            assert getattr(ended, name) == expected[name], ended
    for name in ("metadata", "response"):
        assert is_within(expected.get(name, {}), getattr(ended, name) or {}), ended
    assert expected.get("took_ms_min", 0) <= took_ms <= expected.get("took_ms_max", 60_000)


def is_within(part: Any, whole: Any) -> bool:
    """Whether each member of `part` is in `whole`, at every depth."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and is_within(value, whole[name]) for name, value in part.items())
    return bool(part == whole)
