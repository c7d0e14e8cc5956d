"""Histograms of durations, with the slots of an HdrHistogram of 3 significant digits, from 1 us to 120 s.

Only used slots are stored, because a full histogram for every second of a long run needs too much memory.
Counting must be cheap, because it runs in the generator. `encoding` converts to and from HdrHistogram's
format.
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
"""2048 slots of 1 us, then 1024 slots for every doubling: 3 significant digits."""


def slot_of(us: int) -> int:
    """Return the index of HdrHistogram's slot for a value."""
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
class Histogram:
    """A histogram of durations in microseconds."""

    slots: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    count: int = 0
    sum_us: int = 0
    max_us: int = 0
    """The exact maximum, even if it is beyond the highest slot."""

    def record(self, seconds: float) -> None:
        """Count one duration."""
        us = int(seconds * 1e6 + 0.5)
        self.count += 1
        self.sum_us += us
        self.max_us = max(us, self.max_us)
        us = min(max(us, LOWEST_US), HIGHEST_US)
        shift = us.bit_length() - _LINEAR_BITS
        self.slots[us if shift <= 0 else (shift << _FIRST_HALF_BITS) + (us >> shift)] += 1

    def add(self, other: Histogram) -> None:
        """Add the counts of another histogram. The sum is exact."""
        self.count += other.count
        self.sum_us += other.sum_us
        self.max_us = max(self.max_us, other.max_us)
        for slot, count in other.slots.items():
            self.slots[slot] += count

    def at(self, *percentiles: float) -> list[float]:
        """Return the values at these percentiles, which must ascend, in microseconds."""
        ordered = sorted(self.slots.items())
        values: list[float] = []
        passed, at = 0, -1
        for percentile in percentiles:
            # The nearest rank, as in every HdrHistogram.
            rank = max(1, int(percentile / 100 * self.count + 0.5))
            while passed < rank and at + 1 < len(ordered):
                at += 1
                passed += ordered[at][1]
            values.append(float(min(bounds_of(ordered[at][0])[1], self.max_us)) if ordered else 0.0)
        return values

    @property
    def mean_us(self) -> float:
        """The exact mean; 0 if nothing was counted."""
        return self.sum_us / self.count if self.count else 0.0


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Return the sum of the histograms."""
    total = Histogram()
    for histogram in histograms:
        total.add(histogram)
    return total
