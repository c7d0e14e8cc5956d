"""Settings of all tests: the profile of hypothesis (HYPOTHESIS_PROFILE), signals, event loops, order."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, settings

pytest_plugins = ("tests.postgres.fixtures",)

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI tries the same examples every time, so that a failure is due to the change. `make full` tries new ones.
settings.register_profile("default", QUICK, derandomize="CI" in os.environ)
settings.register_profile("full", QUICK, derandomize=False, max_examples=5_000)
# Mutation tests need the first failure only, and the same examples for each mutant.
SHORT = [Phase.explicit, Phase.generate]
settings.register_profile("mutants", QUICK, derandomize=True, phases=SHORT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A background job of a shell ignores SIGINT, and a program under nohup ignores SIGHUP. The programs under
# test would inherit that, so the default handlers are restored.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

HERE: Final = Path(__file__).parent
IN_ONE_LOOP: Final = {HERE / "e2e", HERE / "linkage", HERE / "scenarios"}
"""Tests that share processes and listeners, or that use gRPC, which can call back into a closed loop."""
LONGEST_FIRST: Final = tuple(
    HERE / name for name in ("docs", "simulation", "chaos", "fuzz", "load", "scenarios", "e2e")
)
"""Directories of long files, in the order in which they start: long ones start first."""
UNMEASURED: Final = {HERE / name for name in ("chaos", "cost", "e2e", "fuzz", "load", "scenarios")}
"""Directories whose processes run without coverage: their tests are slow; others cover the same code."""


@pytest.fixture(scope="module", autouse=True)
def _measured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start the processes of UNMEASURED tests without coverage."""
    with pytest.MonkeyPatch.context() as patch:
        if UNMEASURED.intersection((request.path, *request.path.parents)):
            patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield


@pytest.fixture(scope="module", autouse=True)
def _hangup() -> Iterator[None]:
    """Handle SIGHUP as before after the tests of a file: some call `serve`, which ignores it."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def place(item: pytest.Item) -> int:
    """Return the place of a test's directory in the order of the whole."""
    found = (at for at, directory in enumerate(LONGEST_FIRST) if directory in item.path.parents)
    return next(found, len(LONGEST_FIRST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first; run the asynchronous tests of IN_ONE_LOOP in the session's loop."""
    items.sort(key=place)
    for item in items:
        if IN_ONE_LOOP.intersection(item.path.parents) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
