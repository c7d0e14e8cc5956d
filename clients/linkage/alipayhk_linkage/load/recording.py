"""What one process writes down: how long calls took, by how they ended, and what each second held.

Latencies are counted in the slots of an HdrHistogram of 3 significant digits, 1 us to 120 s, but only in
those that are used: one for every second of a long run would not fit, and counting is part of the load.
`encoding` turns them into HdrHistogram's own form and back.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

LOWEST_US: Final = 1
HIGHEST_US: Final = 120_000_000
_FIRST_HALF_BITS: Final = 10
_LINEAR_BITS: Final = 11
"""2048 slots of 1 us, then 1024 for every doubling: 3 significant digits."""
BUSY: Final = 0.85
"""A loop with so much to do is at its limit: measured, they come to 0.86 to 0.97 there."""


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


class Asked(StrEnum):
    """What a call was made to be."""

    PLAIN = "plain"
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out of order"
    CANCELLED = "cancelled"
    SHORT_DEADLINE = "short deadline"
    FAULT = "fault"


class Group(StrEnum):
    """Which figures a call belongs to."""

    SUCCESS = "success"
    ERROR = "error"
    APART = "apart"
    """It ended as it was made to end: the gateway's success and error figures are without it."""


class End(NamedTuple):
    """How a call ended."""

    rpc: str
    asked: Asked
    code: str
    reason: str
    outcome: str

    @property
    def group(self) -> Group:
        """Where it counts."""
        if self.asked in SET_APART or (
            self.asked is Asked.OUT_OF_ORDER and self.reason == "STALE_BIZ_TIME"
        ):
            return Group.APART
        return Group.SUCCESS if self.code == "OK" else Group.ERROR


SET_APART: Final = frozenset({Asked.CANCELLED, Asked.SHORT_DEADLINE, Asked.FAULT})


@dataclass(slots=True)
class Figures:
    """How long the calls of one ending took."""

    latency: Spread = field(default_factory=Spread)
    """From the intended start."""
    service: Spread = field(default_factory=Spread)
    """From the actual start."""


@dataclass(slots=True)
class Second:
    """One second of the run: arrivals by when they were due, endings by when they came."""

    due: int = 0
    started: int = 0
    late: int = 0
    dropped: int = 0
    dropped_late: int = 0
    """Of the dropped, those that were looked at late."""
    busy: float = 0.0
    """How much of it the loop had something to do; of several processes, the busiest."""
    ends: dict[Group, int] = field(default_factory=lambda: defaultdict(int))
    errors: Counter[str] = field(default_factory=Counter)
    latency: Spread = field(default_factory=Spread)
    """Of successes."""
    in_flight: int = 0
    """The most at once."""

    @property
    def dropped_by_generator(self) -> int:
        """How many were dropped because the generator was late, or too busy to take answers in."""
        return self.dropped if self.busy >= BUSY else self.dropped_late

    def add(self, other: Second) -> None:
        """Count what another process saw in this second."""
        self.due += other.due
        self.started += other.started
        self.late += other.late
        self.dropped += other.dropped
        self.dropped_late += other.dropped_late
        self.busy = max(self.busy, other.busy)
        for group, count in other.ends.items():
            self.ends[group] += count
        self.errors.update(other.errors)
        self.latency.add(other.latency)
        self.in_flight += other.in_flight


class Told(NamedTuple):
    """What one call's caller was told of its request."""

    rpc: str
    request_id: str
    asked: Asked
    code: str
    outcome: str


@dataclass(slots=True)
class Recording:
    """All that one process writes down. Times are seconds from the start of the run."""

    warm_up: float
    late_after: float
    remember: bool
    """Whether what callers were told is kept, for --verify."""
    ends: dict[End, Figures] = field(default_factory=lambda: defaultdict(Figures))
    seconds: dict[int, Second] = field(default_factory=lambda: defaultdict(Second))
    lag: Spread = field(default_factory=Spread)
    """By how much the loop woke later than it asked to."""
    start_lag: Spread = field(default_factory=Spread)
    told: list[Told] = field(default_factory=list)
    unfinished: int = 0

    def arrival(self, intended: float, now: float, in_flight: int, *, room: bool) -> None:
        """Note an arrival, and whether there was room for it."""
        if intended < self.warm_up:
            return
        second = self.seconds[int(intended - self.warm_up)]
        lag = now - intended
        second.due += 1
        if room:
            second.started += 1
            second.in_flight = max(second.in_flight, in_flight)
            self.start_lag.record(lag)
            second.late += lag > self.late_after
        else:
            second.dropped += 1
            second.dropped_late += lag > self.late_after

    def end(self, end: End, intended: float, sent: float, now: float) -> None:
        """Note how a call ended."""
        if intended < self.warm_up:
            return
        figures = self.ends[end]
        figures.latency.record(now - intended)
        figures.service.record(now - sent)
        second = self.seconds[int(now - self.warm_up)]
        group = end.group
        second.ends[group] += 1
        if group is Group.SUCCESS:
            second.latency.record(now - intended)
        elif group is Group.ERROR:
            second.errors[end.reason or end.code] += 1

    def take(self, before: int) -> dict[int, Second]:
        """Hand over the seconds before this one; what comes to them later is handed over later."""
        return {number: self.seconds.pop(number) for number in [n for n in self.seconds if n < before]}
