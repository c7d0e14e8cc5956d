"""How far AlipayHK's clock and ours are apart, as verified answers tell, and what depends on it.

A time that AlipayHK signed in this run is carried forward on CLOCK_BOOTTIME, so that the skew is known at
every later moment, also after the wall clock was set. It decides two things:

- Outcomes are dropped from the ledger only while the clocks agree. Once set a month ahead, this clock would
  make every outcome look old, and what is forgotten could be sent again.
- An answer whose time is outside the window is not believed. BindAccount would be applied each time and
  reported as unknown; so it stops, until a verified answer of either API agrees, or somebody sets the wall
  clock. One request in PROBE_EVERY_S is let through, in case nothing else asks AlipayHK for the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..ledger.lease import Clock, Moment
from ..telemetry.logs import log
from ..telemetry.metrics import Metrics

STOPPED_APIS: Final = frozenset({"BindAccount"})
"""What must not be sent while its answer would not be believed."""
PROBE_EVERY_S: Final = 300.0
STEP_S: Final = 1.0
"""A wall clock that moved by more than this against CLOCK_BOOTTIME was set: NTP slews both together."""
NOTICED_S: Final = 30.0
"""A skew beyond this, or beyond the window, is named to operators."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """AlipayHK's time and ours in one moment."""

    skew_s: float
    ours: Moment

    def skew_at(self, now: Moment) -> float:
        """Return the skew at a later moment: AlipayHK's clock has gone on as CLOCK_BOOTTIME has."""
        return self.skew_s - _stepped_s(self.ours, now)


@dataclass(slots=True)
class _Stop:
    since: Moment
    probe_s: float
    """When the next request may be sent, in seconds since boot."""


class ClockSkew:
    """Learns the skew from verified answers; says so in the log, the metric and `text`."""

    def __init__(self, metrics: Metrics, *, window_s: float = 300.0, clock: Clock | None = None) -> None:
        self._gauge = metrics.clock_skew
        self._window_s = window_s
        self._noticed_s = min(window_s, NOTICED_S)
        self._clock = clock or Clock()
        self._reading: _Reading | None = None
        self._stop: _Stop | None = None
        self._is_named = False

    @property
    def skew_s(self) -> float | None:
        """AlipayHK's time minus ours, now; None until a verified answer told the time."""
        return None if self._reading is None else self._reading.skew_at(self._clock.now())

    @property
    def agrees(self) -> bool:
        """Whether this clock is known to be within the window of AlipayHK's."""
        skew_s = self.skew_s
        return skew_s is not None and abs(round(skew_s)) <= self._window_s

    @property
    def text(self) -> str:
        """A sentence about a skew that operators should know of; else empty."""
        skew_s = self.skew_s
        if skew_s is None or abs(round(skew_s)) <= self._noticed_s:
            return ""
        where = "ahead of" if skew_s > 0 else "behind"
        return f"AlipayHK's clock is {abs(round(skew_s))} s {where} this gateway's"

    def heard(self, skew_s: float, *, in_window: bool) -> None:
        """Take note of the time of a verified answer."""
        now = self._clock.now()
        self._reading = _Reading(skew_s, now)
        if in_window:
            self._stop = None
        elif self._stopped() is None:
            self._stop = _Stop(now, now.since_boot_s + PROBE_EVERY_S)
        self.watch()

    def stops(self, api: str) -> bool:
        """Return whether requests of an API wait until the clocks agree; a probe does not."""
        return api in STOPPED_APIS and self._stopped() is not None

    def would_reject(self, api: str) -> bool:
        """Return whether a request of an API must not be sent now."""
        stop = self._stopped()
        return api in STOPPED_APIS and stop is not None and self._clock.since_boot_s() < stop.probe_s

    def allow(self, api: str) -> bool:
        """Return whether a request may be sent now; where the clocks disagree, it is the one probe."""
        if self.would_reject(api):
            return False
        if self.stops(api) and self._stop is not None:
            self._stop.probe_s = self._clock.since_boot_s() + PROBE_EVERY_S
        return True

    def watch(self) -> None:
        """Bring metric and log up to date: the wall clock may have been set since the last answer."""
        skew_s = self.skew_s
        if skew_s is None:
            return
        self._gauge.set(skew_s)
        if bool(self.text) == self._is_named:
            return
        self._is_named = not self._is_named
        if self._is_named:
            log.warning("clock skew", clock_skew_s=round(skew_s), cause="AlipayHK's time and ours differ")
        else:
            log.info("clock skew ended", clock_skew_s=round(skew_s))

    def _stopped(self) -> _Stop | None:
        """Return what stops requests; nothing once the wall clock was set."""
        if self._stop is not None and abs(_stepped_s(self._stop.since, self._clock.now())) > STEP_S:
            self._stop = None
        return self._stop


def _stepped_s(before: Moment, now: Moment) -> float:
    """Return how far the wall clock was set ahead between two moments."""
    return (now.ms - before.ms) / 1000 - (now.since_boot_s - before.since_boot_s)
