"""How durations were spread: counted in slots of an HdrHistogram of 3 significant digits, 1 us to 120 s.

Only the slots that are used are kept: a whole histogram for every second of a long run would not fit, and
counting is part of the load. `encoding` turns them into HdrHistogram's own form and back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

LOWEST_US: Final = 1
HIGHEST_US: Final = 120_000_000
_FIRST_HALF_BITS: Final = 10
_LINEAR_BITS: Final = 11
"""2048 slots of 1 us, then 1024 for every doubling: 3 significant digits."""


def slot_of(us: int) -> int:
    """Return the index of HdrHistogram's counter for a value."""
    shift = us.bit_length() - _LINEAR_BITS
    return us if shift <= 0 else (shift << _FIRST_HALF_BITS) + (us >> shift)


def bounds_of(slot: int) -> tuple[int, int]:
    """Return the lowest and the highest value that a slot counts."""
    shift = (slot >> _FIRST_HALF_BITS) - 1
    if shift <= 0:
        return slot, slot
    lowest = (slot - (shift << _FIRST_HALF_BITS)) << shift
    return lowest, lowest + (1 << shift) - 1


@dataclass(slots=True)
class Spread:
    """How a duration was spread, in microseconds."""

    slots: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    count: int = 0
    sum_us: int = 0
    max_us: int = 0
    """Exact, beyond the highest slot too."""

    def record(self, seconds: float) -> None:
        """Count one."""
        us = int(seconds * 1e6 + 0.5)
        self.count += 1
        self.sum_us += us
        self.max_us = max(us, self.max_us)
        us = min(max(us, LOWEST_US), HIGHEST_US)
        shift = us.bit_length() - _LINEAR_BITS
        self.slots[us if shift <= 0 else (shift << _FIRST_HALF_BITS) + (us >> shift)] += 1

    def add(self, other: Spread) -> None:
        """Count what another one counted; nothing is lost."""
        self.count += other.count
        self.sum_us += other.sum_us
        self.max_us = max(self.max_us, other.max_us)
        for slot, count in other.slots.items():
            self.slots[slot] += count

    def at(self, *percentiles: float) -> list[float]:
        """Return, in microseconds, what these shares per cent of all did not exceed; ascending."""
        ordered = sorted(self.slots.items())
        values: list[float] = []
        passed, at = 0, -1
        for percentile in percentiles:
            # As every HdrHistogram counts: the nearest rank.
            rank = max(1, int(percentile / 100 * self.count + 0.5))
            while passed < rank and at + 1 < len(ordered):
                at += 1
                passed += ordered[at][1]
            values.append(float(min(bounds_of(ordered[at][0])[1], self.max_us)) if ordered else 0.0)
        return values

    @property
    def mean_us(self) -> float:
        """The mean."""
        return self.sum_us / self.count if self.count else 0.0


def together(spreads: Iterable[Spread]) -> Spread:
    """Return the sum of several."""
    total = Spread()
    for spread in spreads:
        total.add(spread)
    return total
