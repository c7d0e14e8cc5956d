"""The sum of the recordings of all processes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from .histogram import Histogram, merged
from .recording import CallResult, Figures, Group, Recording, ReportedOutcome, Second


@dataclass(slots=True)
class Totals:
    """The sum of the recordings of all processes. No figure includes the warm-up."""

    results: dict[CallResult, Figures] = field(default_factory=lambda: defaultdict(Figures))
    seconds: dict[int, Second] = field(default_factory=lambda: defaultdict(Second))
    lag: Histogram = field(default_factory=Histogram)
    start_lag: Histogram = field(default_factory=Histogram)
    reported: list[ReportedOutcome] = field(default_factory=list)
    unfinished: int = 0
    processes: int = 0
    """The number of processes that sent their whole recording."""
    processes_lost: int = 0
    interrupted: bool = False
    measured: float = 0.0
    """The duration of the arrivals in seconds, without the warm-up."""

    def add_seconds(self, seconds: dict[int, Second]) -> None:
        """Add some seconds of one process."""
        for number, second in seconds.items():
            self.seconds[number].add(second)

    def add(self, recording: Recording) -> None:
        """Add the rest of one process's recording."""
        self.add_seconds(recording.seconds)
        for result, figures in recording.results.items():
            self.results[result].latency.add(figures.latency)
            self.results[result].service.add(figures.service)
        self.lag.add(recording.lag)
        self.start_lag.add(recording.start_lag)
        self.reported += recording.reported
        self.unfinished += recording.unfinished
        self.processes += 1

    def latency(self, group: Group) -> Histogram:
        """Return the latencies of a group."""
        return merged(figures.latency for result, figures in self.results.items() if result.group is group)

    def service(self, group: Group) -> Histogram:
        """Return the service times of a group."""
        return merged(figures.service for result, figures in self.results.items() if result.group is group)

    def count(self, group: Group) -> int:
        """Return the number of calls of a group."""
        return sum(
            figures.latency.count for result, figures in self.results.items() if result.group is group
        )

    @property
    def due(self) -> int:
        """The number of arrivals that were due."""
        return sum(second.due for second in self.seconds.values())

    @property
    def started(self) -> int:
        """The number of arrivals that became calls."""
        return sum(second.started for second in self.seconds.values())

    @property
    def late(self) -> int:
        """The number of calls that started late."""
        return sum(second.late for second in self.seconds.values())

    @property
    def dropped(self) -> int:
        """The number of arrivals that were dropped because too many calls were in flight."""
        return sum(second.dropped for second in self.seconds.values())

    @property
    def dropped_by_generator(self) -> int:
        """The number of dropped arrivals that the generator caused, not the gateway."""
        return sum(second.dropped_by_generator for second in self.seconds.values())

    @property
    def busy(self) -> list[float]:
        """For each measured second, the share of busy time of the busiest process's event loop."""
        return [second.busy for second in self._measured]

    @property
    def succeeded(self) -> int:
        """The number of calls that succeeded within the measured time, including calls of the warm-up."""
        return sum(second.results.get(Group.SUCCESS, 0) + second.carried for second in self._measured)

    @property
    def _measured(self) -> list[Second]:
        return [second for number, second in self.seconds.items() if number < self.measured]
