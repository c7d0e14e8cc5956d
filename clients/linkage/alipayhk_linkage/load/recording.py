"""What one process writes down: how long calls took, by how they ended, and what each second held."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from .spread import Spread

BUSY: Final = 0.85
"""A loop with so much to do is at its limit: measured, they come to 0.86 to 0.97 there."""


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
    carried: int = 0
    """Successes of calls that were due in the warm-up; they are in no other figure."""

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
        self.carried += other.carried


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
    over: float = math.inf
    """When the last call is started; what ends later counts in no second before that."""
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
            # By the clock, or a second that was handed over would have its most a second time.
            at_once = self.seconds[int(max(now, intended) - self.warm_up)]
            at_once.in_flight = max(at_once.in_flight, in_flight)
            self.start_lag.record(lag)
            second.late += lag > self.late_after
        else:
            second.dropped += 1
            second.dropped_late += lag > self.late_after

    def end(self, end: End, intended: float, sent: float, now: float) -> None:
        """Note how a call ended."""
        if intended < self.warm_up:
            if now >= self.warm_up and end.group is Group.SUCCESS:
                self.seconds[self._ended_in(now)].carried += 1
            return
        figures = self.ends[end]
        figures.latency.record(now - intended)
        figures.service.record(now - sent)
        second = self.seconds[self._ended_in(now)]
        group = end.group
        second.ends[group] += 1
        if group is Group.SUCCESS:
            second.latency.record(now - intended)
        elif group is Group.ERROR:
            second.errors[end.reason or end.code] += 1

    def never_ended(self, intended: float) -> None:
        """Note a call that is given up."""
        self.unfinished += intended >= self.warm_up

    def _ended_in(self, now: float) -> int:
        after = max(0, math.ceil(round(self.over - self.warm_up, 6))) if now >= self.over else 0
        return max(int(now - self.warm_up), after)

    def take(self, before: int) -> dict[int, Second]:
        """Hand over the seconds before this one; what comes to them later is handed over later."""
        return {number: self.seconds.pop(number) for number in [n for n in self.seconds if n < before]}
