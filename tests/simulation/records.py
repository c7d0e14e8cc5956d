"""What a run remembers for the checker: calls, first bytes, an operator's decisions."""

from __future__ import annotations

from dataclasses import dataclass

from service.delivery.flight import Flight
from service.ledger import Row, State

from .gateway import Order, Report


@dataclass(slots=True)
class Made:
    """A call that was made, and what it was told."""

    number: int
    order: Order
    gateway: str
    started_s: float
    left_s: float
    ran_before_s: float
    monotonic_s: float
    """CLOCK_MONOTONIC of its process when it started."""
    intention: int
    """What the caller wants: calls for it under a new id share its number."""
    ended_s: float = 0.0
    report: Report | None = None
    left: bool = False
    """Whether the caller left before."""
    late_s: float = 0.0
    """How long after its deadline it ended, without the time that its process was frozen."""
    early_s: float = 0.0
    """How long before its deadline it ended, on CLOCK_MONOTONIC."""
    row: Row | None = None
    """What was durable of the request at its end; only with the shared store."""
    calm: bool = False
    clock_steps: int = 0
    """How often the wall clock had been set when it ended."""
    unclear: bool = False
    """Whether a claim of its request was committed, and failed all the same."""
    lost: bool = False
    """Whether the result could not be recorded at once, so that a crash can lose it."""
    flight: Flight | None = None
    """The flight that it waited for; None if it was refused without one."""


@dataclass(slots=True)
class Leaving:
    """The first byte of a request left a process."""

    at_s: float
    process: str
    order_id: tuple[str, str]
    claimed: bool
    """Whether the process held a claim that had not expired; True without a ledger between processes."""
    busy_with: str
    """Another request for the same linkage that was claimed at that time."""
    clock_steps: int
    at_once: str = ""
    """Another request for the same linkage, or the same one elsewhere, that has no answer yet."""


@dataclass(slots=True)
class Resolved:
    """A person's decision about a request in doubt."""

    at_s: float
    order_id: tuple[str, str]
    state: State
