"""The number of file descriptors reserved for callers."""

from __future__ import annotations

import pytest

from service.server.descriptors import CALLERS_MAX, OWN, for_callers, is_low

ROWS = [
    (1_024, 676, 1_024 // 4, True),
    (1_024, 200, 1_024 - 200 - OWN, False),
    (256, 676, 64, True),
    (20_000, 676, CALLERS_MAX, False),
    (1_048_576, 676, CALLERS_MAX, False),
]


@pytest.mark.parametrize(("limit", "reserved", "callers", "low"), ROWS)
def test_callers_get_the_descriptors_that_are_left_but_at_least_a_quarter(
    limit: int, reserved: int, callers: int, low: bool
) -> None:
    assert for_callers(limit, reserved) == callers
    assert is_low(limit, reserved) is low
