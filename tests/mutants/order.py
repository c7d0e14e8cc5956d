"""A plugin of pytest: run the test files that take least first, so that a mutant is detected early.

It also keeps the names of tests the same. mutmut collects the tests once before all mutants and once for
each, in one process. pytest stores the names of parameters, and would escape the backslashes in them again.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

STATS = Path("mutmut-stats.json")
"""mutmut's file with the seconds that each test took, in the directory in which it runs the tests."""


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for mark in metafunc.definition.iter_markers("parametrize"):
        object.__setattr__(mark._param_ids_from or mark, "_param_ids_generated", None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not STATS.exists():
        return
    seconds = json.loads(STATS.read_text("utf-8"))["duration_by_test"]
    of_file = Counter[str]()
    for test, duration in seconds.items():
        of_file[test.partition("::")[0]] += duration

    def place(item: pytest.Item) -> tuple[float, str, float, str]:
        file = item.nodeid.partition("::")[0]
        return of_file[file], file, seconds.get(item.nodeid, 0), item.nodeid

    items.sort(key=place)
