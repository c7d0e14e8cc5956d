"""The gateway under more load than its capacity, in an open loop: the statuses of calls, and their latency.

`make bench` measures the speed. The bounds here are so wide that a busy machine does not exceed them.
"""

from __future__ import annotations

import pytest

from bench.overload import offered, serving

OURS = {"OK", "OVERLOADED"}
DEADLINE_S = 30.0
"""Much longer than any call takes on a busy machine, so that no call reaches its deadline."""


@pytest.mark.full
def test_beyond_capacity_calls_are_served_in_time_or_refused_with_details() -> None:
    with serving() as target:
        capacity = offered(target, 5.0, "--closed", "-c", "16").rate
        for multiple in (2.0, 3.0):
            figures = offered(
                target, 5.0, "--rate", f"{capacity * multiple:.0f}", "--max-in-flight", "20000"
            )
            assert set(figures.kinds) <= OURS, figures
            assert figures.p99_ms < DEADLINE_S * 1000 / 3, figures
            assert figures.kinds["OK"], figures
        after = offered(target, 3.0, "--rate", f"{max(capacity / 10, 1.0):.0f}")
        assert after.kinds["OK"] > after.kinds.total() / 2, after
