"""The plan of a run. Every process of the generator gets a copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ..channel import Tls
from .profile import Profile
from .requests import Mix

RUN_OUT_S: Final = 2.0
"""How long after their deadline the run waits for the last calls."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All settings of a run. Times are in seconds."""

    target: str
    tls: Tls | None = field(repr=False)
    shared_ledger: bool
    """Whether calls are spread over all addresses of a target."""
    encrypted_target: str | None
    run: str
    """A random id of the run, which is part of every request id."""
    seed: str
    mix: Mix
    duration: float
    """Without the warm-up."""
    warm_up: float
    profile: Profile | None
    """The arrivals, including the warm-up; None in a closed loop."""
    poisson: bool
    callers: int
    """The number of callers in a closed loop, in all processes together."""
    max_in_flight: int
    """In all processes together."""
    deadline: float
    late_after: float
    processes: int
    remember: bool

    @property
    def total_duration(self) -> float:
        """The duration of the run with the warm-up, without the wait for the last calls."""
        return self.warm_up + self.duration

    def share(self, whole: int, process: int) -> int:
        """Return one process's share of a whole number. The shares of all processes add up to it."""
        return whole // self.processes + (process < whole % self.processes)
