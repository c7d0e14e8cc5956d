"""The recording of one process: latencies by call result, and the counts of each second."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from .histogram import Histogram

BUSY: Final = 0.85
"""The share of busy time above which an event loop is at its limit. Measured at the limit: 0.86 to 0.97."""


class Variant(StrEnum):
    """The kind of call that the mix chose."""

    PLAIN = "plain"
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out of order"
    CANCELLED = "cancelled"
    SHORT_DEADLINE = "short deadline"
    FAULT = "fault"


class Group(StrEnum):
    """The group of figures that a call counts in."""

    SUCCESS = "success"
    ERROR = "error"
    APART = "apart"
    """Calls that the mix made fail. They are in neither the success nor the error figures."""


class CallResult(NamedTuple):
    """The result of a call."""

    rpc: str
    variant: Variant
    code: str
    reason: str
    outcome: str

    @property
    def group(self) -> Group:
        """The group that the call counts in."""
        if self.variant in SET_APART or (
            self.variant is Variant.OUT_OF_ORDER and self.reason == "STALE_BIZ_TIME"
        ):
            return Group.APART
        return Group.SUCCESS if self.code == "OK" else Group.ERROR


SET_APART: Final = frozenset({Variant.CANCELLED, Variant.SHORT_DEADLINE, Variant.FAULT})


@dataclass(slots=True)
class Figures:
    """The durations of all calls with one result."""

    latency: Histogram = field(default_factory=Histogram)
    """From the intended start."""
    service: Histogram = field(default_factory=Histogram)
    """From the actual start."""


@dataclass(slots=True)
class Second:
    """The counts of one second: arrivals by their intended time, results by the time of the response."""

    due: int = 0
    started: int = 0
    late: int = 0
    dropped: int = 0
    dropped_late: int = 0
    """The dropped arrivals that the generator handled late."""
    busy: float = 0.0
    """The share of busy time of the event loop, 0 to 1; of several processes, the highest."""
    results: dict[Group, int] = field(default_factory=lambda: defaultdict(int))
    errors: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)
    """Of successes."""
    in_flight: int = 0
    """The maximum in this second."""
    carried: int = 0
    """Successes of calls that were due in the warm-up. No other figure counts them."""

    @property
    def dropped_by_generator(self) -> int:
        """The arrivals dropped because the generator was late, or too busy to process responses."""
        return self.dropped if self.busy >= BUSY else self.dropped_late

    def add(self, other: Second) -> None:
        """Add the counts of another process in this second."""
        self.due += other.due
        self.started += other.started
        self.late += other.late
        self.dropped += other.dropped
        self.dropped_late += other.dropped_late
        self.busy = max(self.busy, other.busy)
        for group, count in other.results.items():
            self.results[group] += count
        self.errors.update(other.errors)
        self.latency.add(other.latency)
        self.in_flight += other.in_flight
        self.carried += other.carried


class ReportedOutcome(NamedTuple):
    """The outcome that the gateway reported for one call."""

    rpc: str
    request_id: str
    variant: Variant
    code: str
    outcome: str


@dataclass(slots=True)
class Recording:
    """The recording of one process. Times are seconds from the start of the run."""

    warm_up: float
    late_after: float
    remember: bool
    """Whether to keep the reported outcomes, for --verify."""
    stopped_at: float = math.inf
    """When arrivals stop. A result that comes later counts in a second after it."""
    results: dict[CallResult, Figures] = field(default_factory=lambda: defaultdict(Figures))
    seconds: dict[int, Second] = field(default_factory=lambda: defaultdict(Second))
    lag: Histogram = field(default_factory=Histogram)
    """How much later than requested the event loop woke up."""
    start_lag: Histogram = field(default_factory=Histogram)
    """How much later than intended calls started."""
    reported: list[ReportedOutcome] = field(default_factory=list)
    unfinished: int = 0

    def arrival(self, intended: float, now: float, in_flight: int, *, accepted: bool) -> None:
        """Record an arrival. It is accepted, or dropped because too many calls are in flight."""
        if intended < self.warm_up:
            return
        second = self.seconds[int(intended - self.warm_up)]
        lag = now - intended
        second.due += 1
        if accepted:
            second.started += 1
            # Use the current second. The intended second may have been reported already, and adding its
            # maximum again would double it.
            current = self.seconds[int(max(now, intended) - self.warm_up)]
            current.in_flight = max(current.in_flight, in_flight)
            self.start_lag.record(lag)
            second.late += lag > self.late_after
        else:
            second.dropped += 1
            second.dropped_late += lag > self.late_after

    def result(self, result: CallResult, intended: float, sent: float, now: float) -> None:
        """Record the result of a call."""
        group = result.group
        if intended < self.warm_up:
            if now >= self.warm_up and group is Group.SUCCESS:
                self.seconds[self._second_of_result(now)].carried += 1
            return
        figures = self.results[result]
        figures.latency.record(now - intended)
        figures.service.record(now - sent)
        second = self.seconds[self._second_of_result(now)]
        second.results[group] += 1
        if group is Group.SUCCESS:
            second.latency.record(now - intended)
        elif group is Group.ERROR:
            second.errors[result.reason or result.code] += 1

    def unfinished_call(self, intended: float) -> None:
        """Record a call without a result."""
        self.unfinished += intended >= self.warm_up

    def _second_of_result(self, now: float) -> int:
        stopped = now >= self.stopped_at
        first_after = max(0, math.ceil(round(self.stopped_at - self.warm_up, 6))) if stopped else 0
        return max(int(now - self.warm_up), first_after)

    def take(self, before: int) -> dict[int, Second]:
        """Remove and return the seconds before this one. A later call returns later counts for them."""
        return {number: self.seconds.pop(number) for number in [n for n in self.seconds if n < before]}
