"""Settings of all tests: the profile of hypothesis (HYPOTHESIS_PROFILE), signals, and event loops."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# CI tries the same examples every time, so that a failure is due to the change. `make full` tries new ones.
settings.register_profile("default", QUICK, derandomize="CI" in os.environ)
settings.register_profile("full", QUICK, derandomize=False, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A background job of a shell ignores SIGINT, and a program under nohup ignores SIGHUP. The programs under
# test would inherit that, so the default handlers are restored.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

HERE: Final = Path(__file__).parent
IN_ONE_LOOP: Final = {HERE / "e2e", HERE / "linkage", HERE / "scenarios"}
"""Tests that share processes and listeners, or that use gRPC, which can call back into a closed loop."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run every asynchronous test of IN_ONE_LOOP in the event loop of the session."""
    for item in items:
        if IN_ONE_LOOP.intersection(item.path.parents) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
