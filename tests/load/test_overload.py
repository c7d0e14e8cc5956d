"""The gateway beyond its capacity, in an open loop: which kinds of answers there are, and how late.

Speed is measured by `make bench`; the bounds here hold on a machine that is busy with other work too.
"""

from __future__ import annotations

import pytest

from bench.overload import offered, serving

OURS = {"OK", "OVERLOADED"}
DEADLINE_S = 30.0
"""Far beyond what a busy machine takes: no call ends by its own deadline."""


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
