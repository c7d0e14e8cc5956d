"""What all processes of a run wrote down, added up."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from .recording import End, Figures, Group, Recording, Second, Told
from .spread import Spread, together


@dataclass(slots=True)
class Tally:
    """The sum; without the warm-up, in all of it."""

    ends: dict[End, Figures] = field(default_factory=lambda: defaultdict(Figures))
    seconds: dict[int, Second] = field(default_factory=lambda: defaultdict(Second))
    lag: Spread = field(default_factory=Spread)
    start_lag: Spread = field(default_factory=Spread)
    told: list[Told] = field(default_factory=list)
    unfinished: int = 0
    processes: int = 0
    """That told everything."""
    processes_lost: int = 0
    interrupted: bool = False
    measured: float = 0.0
    """Seconds for which calls were started, without the warm-up."""

    def add_seconds(self, seconds: dict[int, Second]) -> None:
        """Add what one process saw in some seconds."""
        for number, second in seconds.items():
            self.seconds[number].add(second)

    def add(self, recording: Recording) -> None:
        """Add all the rest of one process."""
        self.add_seconds(recording.seconds)
        for end, figures in recording.ends.items():
            self.ends[end].latency.add(figures.latency)
            self.ends[end].service.add(figures.service)
        self.lag.add(recording.lag)
        self.start_lag.add(recording.start_lag)
        self.told += recording.told
        self.unfinished += recording.unfinished
        self.processes += 1

    def latency(self, group: Group) -> Spread:
        """Return the latencies of a group."""
        return together(figures.latency for end, figures in self.ends.items() if end.group is group)

    def service(self, group: Group) -> Spread:
        """Return the service times of a group."""
        return together(figures.service for end, figures in self.ends.items() if end.group is group)

    def count(self, group: Group) -> int:
        """Return how many calls of a group ended."""
        return sum(figures.latency.count for end, figures in self.ends.items() if end.group is group)

    @property
    def due(self) -> int:
        """How many arrivals were due."""
        return sum(second.due for second in self.seconds.values())

    @property
    def started(self) -> int:
        """How many were started."""
        return sum(second.started for second in self.seconds.values())

    @property
    def late(self) -> int:
        """How many were started late."""
        return sum(second.late for second in self.seconds.values())

    @property
    def dropped(self) -> int:
        """How many found no room."""
        return sum(second.dropped for second in self.seconds.values())

    @property
    def dropped_by_generator(self) -> int:
        """How many of those say nothing about the gateway."""
        return sum(second.dropped_by_generator for second in self.seconds.values())

    @property
    def busy(self) -> list[float]:
        """For each measured second, how much of it the busiest process's loop had something to do."""
        return [second.busy for second in self._measured]

    @property
    def succeeded(self) -> int:
        """How many calls succeeded within the measured time, those of the warm-up included."""
        return sum(second.ends.get(Group.SUCCESS, 0) + second.carried for second in self._measured)

    @property
    def _measured(self) -> list[Second]:
        return [second for number, second in self.seconds.items() if number < self.measured]
