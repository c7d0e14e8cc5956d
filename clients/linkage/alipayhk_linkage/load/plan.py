"""What a run is to do; it goes to every process as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ..channel import Tls
from .profile import Profile
from .requests import Mix

RUN_OUT_S: Final = 2.0
"""How long after their deadline calls are waited for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a process needs to know."""

    target: str
    tls: Tls | None = field(repr=False)
    encrypted_target: str | None
    run: str
    """In every request id; new in every run."""
    seed: str
    mix: Mix
    duration: float
    """Seconds, without the warm-up."""
    warm_up: float
    profile: Profile | None
    """The arrivals, warm-up included; None in a closed loop."""
    poisson: bool
    callers: int
    """In a closed loop: how many calls at once, in all processes together."""
    max_in_flight: int
    """In all processes together."""
    deadline: float
    late_after: float
    processes: int
    remember: bool

    @property
    def lasts(self) -> float:
        """How long arrivals come, in seconds."""
        return self.warm_up + self.duration

    def share(self, whole: int, process: int) -> int:
        """Return one process's share of a whole number; the shares add up to it."""
        return whole // self.processes + (process < whole % self.processes)
