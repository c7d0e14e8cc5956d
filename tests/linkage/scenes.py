"""Run the scenarios of clients/scenarios.json, which the clients of all languages must pass, in Python."""

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
TRIES_MAX: Final = 5
"""How often a step with a short deadline is tried until the machine was fast enough."""

Call = Callable[[Any, float], Awaitable[Any]]
"""Calls the RPC of a request message, with a timeout in seconds."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a call, with the names that the file uses."""

    code: str
    reason: str = ""
    outcome: str = "OK"
    retry: str = ""
    metadata: Any = None
    violations: Any = None
    response: Any = None


async def play(scenario: dict[str, Any], where: Where, call: Call) -> None:
    """Run the steps of a scenario, and check the result of each."""
    text = json.dumps(scenario).replace("${run}", where.run)
    for step in json.loads(text)["steps"]:
        assert step.keys() <= STEP
        assert step["expect"].keys() <= EXPECT
        for _ in range(TRIES_MAX if "deadline_ms" in step else 1):
            result, took_ms = await made(step, where, call)
            if result.code != "DEADLINE_EXCEEDED" or result.reason == step["expect"].get("reason"):
                break
            # On a busy machine the details may arrive too late, or the last attempt may time out. Parts of
            # the call may still be in progress, so the next one needs its own id.
            step["request"]["requestId"] += "-again"
        check(result, took_ms, **step["expect"])


async def made(step: dict[str, Any], where: Where, call: Call) -> tuple[Result, float]:
    """Make the call of a step; return its result and its duration in milliseconds."""
    if answers := step.get("answers"):
        set_answers(where, step["method"], answers)
    request = json_format.ParseDict(step["request"], REQUESTS[step["method"]]())
    start = time.monotonic()
    result = await result_of(call(request, step.get("deadline_ms", DEADLINE_MS) / 1000))
    return result, (time.monotonic() - start) * 1000


def set_answers(where: Where, api: str, faults: list[str]) -> None:
    """Set the sandbox's next answers for an API."""
    answers = {"answers": [{"fault": fault} for fault in faults], "api": api}
    with urllib.request.urlopen(f"{where.console}/__sandbox/answers", json.dumps(answers).encode()):
        pass


async def result_of(calling: Awaitable[Any]) -> Result:
    """Wait for a call; return its result."""
    try:
        response = await calling
    except LinkageError as error:
        violations = sorted(fault.field for fault in error.violations)
        reported = (error.code.name, error.reason, error.outcome, error.retry)
        return Result(*reported, dict(error.metadata), violations)
    return Result("OK", response=json_format.MessageToDict(response))


def check(result: Result, took_ms: float, **expected: Any) -> None:
    """Check the result of a call against the step's `expect`."""
    if "code" in expected:
        assert result.code == expected["code"], result
    for name in ("reason", "outcome", "retry", "violations"):
        if name in expected:
            assert getattr(result, name) == expected[name], result
    for name in ("metadata", "response"):
        assert is_within(expected.get(name, {}), getattr(result, name) or {}), result
    assert expected.get("took_ms_min", 0) <= took_ms <= expected.get("took_ms_max", 60_000)


def is_within(part: Any, whole: Any) -> bool:
    """Return whether each member of `part` is in `whole`, recursively."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and is_within(value, whole[name]) for name, value in part.items())
    return bool(part == whole)
