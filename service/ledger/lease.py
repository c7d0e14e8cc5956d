"""The lease of a claimed request, measured by two clocks.

Other processes compare the lease in the ledger with the wall clock. This process also measures it on
CLOCK_BOOTTIME, starting before the claim: that clock cannot be set, and it counts while the machine is
suspended. A request may be sent while the lease holds by both clocks. With the wall clock alone, a process
that was stopped would send after that clock was set back. With CLOCK_BOOTTIME alone, it would send after
the wall clock was set past the lease, when another process may have taken over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from clients.alipayhk.wire.clock import since_boot_s

UPSTREAM_TIMEOUT_MAX_S: Final = 60.0
LEASE_MARGIN_S: Final = 1.0
"""A lease lasts this much longer than an attempt: the ledger may take this long to grant it."""
LEASE_MAX_MS: Final = round((UPSTREAM_TIMEOUT_MAX_S + LEASE_MARGIN_S) * 1000)
"""The longest lease that any process can have written, whatever its settings were.

A lease that expires later was written before the wall clock was set back.
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment by both clocks."""

    ms: int
    """Milliseconds since 1970, by the wall clock."""
    since_boot_s: float

    def lease(self, lease_ms: int) -> Lease:
        """Return the lease that starts now."""
        return Lease(self.ms + lease_ms, self.since_boot_s + lease_ms / 1000)


@dataclass(frozen=True, slots=True)
class Clock:
    """The wall clock, which can be set, and the seconds since boot, which cannot."""

    now_s: Callable[[], float] = time.time
    since_boot_s: Callable[[], float] = since_boot_s

    def now_ms(self) -> int:
        """Return the wall clock's milliseconds since 1970."""
        return round(self.now_s() * 1000)

    def now(self) -> Moment:
        """Read both clocks."""
        return Moment(round(self.now_s() * 1000), self.since_boot_s())

    def is_late(self, asked: Moment) -> bool:
        """Return whether a lease asked for at that moment may expire before its attempt ends.

        Then the ledger took too long, or the wall clock was set back, by which others judge the lease.
        """
        now = self.now()
        took_s, set_back_s = now.since_boot_s - asked.since_boot_s, (asked.ms - now.ms) / 1000
        return max(took_s, set_back_s) > LEASE_MARGIN_S


WALL_CLOCK: Final = Clock()


@dataclass(frozen=True, slots=True)
class Lease:
    """The time until which no other process takes over a request."""

    until_ms: int
    send_by_s: float
    """The last moment since boot for the first byte of an attempt."""

    def holds(self, clock: Clock, wait_s: float = 0.0) -> bool:
        """Return whether the lease still holds after a wait."""
        until_s = clock.now_s() + wait_s
        return until_s * 1000 < self.until_ms and clock.since_boot_s() + wait_s < self.send_by_s
