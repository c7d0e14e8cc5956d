"""The clock skew between AlipayHK and this gateway, from verified responses.

A time that AlipayHK signed is extrapolated on CLOCK_BOOTTIME. So the skew is known at every later moment,
also after the wall clock was set. Two decisions depend on it:

- Results are dropped from the ledger only while the clocks agree. If this clock were set a month ahead,
  every result would look old. A request could be sent again after its result was dropped.
- A response with a time outside the window is not accepted. A request that is not idempotent would take
  effect each time and be reported as unknown. So STOPPED_APIS stop until a verified response of any API is
  inside the window, or the wall clock is set. One request in PROBE_EVERY_S is still sent, as a probe, in
  case no other request brings a time from AlipayHK.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from clients.alipayhk.api import Api

from ..ledger.lease import Clock, Moment
from ..telemetry.logs import log
from ..telemetry.metrics import Metrics

STOPPED_APIS: Final = frozenset(Api) - {Api.SYNC_LINKAGE}
"""The APIs that are not called while their responses would not be accepted.

SyncLinkage is called: AlipayHK documents it as idempotent, so a later call learns the outcome.
"""
PROBE_EVERY_S: Final = 300.0
STEP_S: Final = 1.0
"""A wall clock that moved more than this against CLOCK_BOOTTIME was set: NTP slews both together."""
NOTICED_S: Final = 30.0
"""A skew beyond this, or beyond the window, is reported to operators."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """AlipayHK's time and ours at one moment."""

    skew_s: float
    ours: Moment

    def skew_at(self, now: Moment) -> float:
        """Return the skew at a later moment, assuming that AlipayHK's clock runs like CLOCK_BOOTTIME."""
        return self.skew_s - _stepped_s(self.ours, now)


@dataclass(slots=True)
class _Stop:
    since: Moment
    probe_s: float
    """When the next probe may be sent, in seconds since boot."""


class ClockSkew:
    """Learns the skew from verified responses; reports it in the log, the metric and `text`."""

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
        """AlipayHK's time minus ours, now, in seconds; None before the first verified response."""
        return None if self._reading is None else self._reading.skew_at(self._clock.now())

    @property
    def agrees(self) -> bool:
        """Whether this clock is known to be within the window around AlipayHK's."""
        skew_s = self.skew_s
        return skew_s is not None and abs(round(skew_s)) <= self._window_s

    @property
    def text(self) -> str:
        """A sentence for operators about a large skew; empty if the skew is small or not known."""
        skew_s = self.skew_s
        if skew_s is None or not self._is_large(skew_s):
            return ""
        where = "ahead of" if skew_s > 0 else "behind"
        return f"AlipayHK's clock is {abs(round(skew_s))} s {where} this gateway's"

    def heard(self, skew_s: float, *, in_window: bool) -> None:
        """Store the skew of a verified response, in seconds.

        It can be large for a response in the window if the clock was set, or the machine was suspended,
        after the request was sent. Such a response neither starts nor ends a stop.
        """
        now = self._clock.now()
        self._reading = _Reading(skew_s, now)
        if in_window:
            self._stop = None if self.agrees else self._stop
        elif self._stopped() is None:
            self._stop = _Stop(now, now.since_boot_s + PROBE_EVERY_S)
        self._report(skew_s)

    def stops(self, api: str) -> bool:
        """Return whether an API is not called until the clocks agree, except by a probe."""
        return self._stop is not None and api in STOPPED_APIS and self._stopped() is not None

    def would_reject(self, api: str) -> bool:
        """Return whether a request to an API must not be sent now."""
        if self._stop is None or api not in STOPPED_APIS:
            return False
        stop = self._stopped()
        return stop is not None and self._clock.since_boot_s() < stop.probe_s

    def allow(self, api: str) -> bool:
        """Return whether a request may be sent now; if the clocks disagree, it is the next probe."""
        if self._stop is None:
            return True
        if self.would_reject(api):
            return False
        if self.stops(api) and self._stop is not None:
            self._stop.probe_s = self._clock.since_boot_s() + PROBE_EVERY_S
        return True

    def watch(self) -> None:
        """Update metric and log: the wall clock may have been set since the last response."""
        skew_s = self.skew_s
        if skew_s is not None:
            self._report(skew_s)

    def _report(self, skew_s: float) -> None:
        self._gauge.set(skew_s)
        if self._is_large(skew_s) == self._is_named:
            return
        self._is_named = not self._is_named
        if self._is_named:
            log.warning(
                "clock skew", clock_skew_s=round(skew_s), cause="AlipayHK's clock and this gateway's differ"
            )
        else:
            log.info("clock skew ended", clock_skew_s=round(skew_s))

    def _is_large(self, skew_s: float) -> bool:
        return abs(round(skew_s)) > self._noticed_s

    def _stopped(self) -> _Stop | None:
        """Return the stop that is in effect; setting the wall clock ends it."""
        if self._stop is not None and abs(_stepped_s(self._stop.since, self._clock.now())) > STEP_S:
            self._stop = None
        return self._stop


def _stepped_s(before: Moment, now: Moment) -> float:
    """Return how far the wall clock was set ahead between two moments, in seconds."""
    return (now.ms - before.ms) / 1000 - (now.since_boot_s - before.since_boot_s)
