"""What every test has: how hard hypothesis looks, by HYPOTHESIS_PROFILE, and a Ctrl-C that arrives."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# In CI the same examples every time: a change fails for what it changed. `make full` looks for new ones.
settings.register_profile("default", QUICK, derandomize="CI" in os.environ)
settings.register_profile("full", QUICK, derandomize=False, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# What a shell starts in the background ignores Ctrl-C, and what nohup starts the end of its terminal; both
# hand that on, here to the programs under test.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

HERE: Final = Path(__file__).parent
IN_ONE_LOOP: Final = {HERE / "e2e", HERE / "linkage", HERE / "scenarios"}
"""Tests that share processes and listeners, or call by gRPC, which may answer a loop that is closed."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run every asynchronous test of some directories in the loop of the whole session."""
    for item in items:
        if IN_ONE_LOOP.intersection(item.path.parents) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
