"""The clock skew: learned from responses, reported, and stopping BindAccount."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from service.delivery.clock_skew import PROBE_EVERY_S, ClockSkew
from service.ledger.lease import Clock
from service.telemetry.metrics import Metrics

WINDOW_S = 300.0
MONTH_S = 31 * 86_400.0


@dataclass
class Clocks:
    """A wall clock that can be set, the seconds since boot, and AlipayHK's clock, which is right."""

    since_boot_s: float = 1_000.0
    ahead_s: float = 0.0
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        wall = Clock(lambda: 1.8e9 + self.since_boot_s + self.ahead_s, lambda: self.since_boot_s)
        self.skew = ClockSkew(self.metrics, window_s=WINDOW_S, clock=wall)

    def answer(self) -> None:
        """Get a verified response from AlipayHK."""
        self.skew.heard(-self.ahead_s, in_window=abs(self.ahead_s) <= WINDOW_S)

    def gauge(self) -> float | None:
        return self.metrics.registry.get_sample_value("alipayhk_clock_skew_seconds")


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def test_skew_is_unknown_before_the_first_verified_response(clocks: Clocks) -> None:
    assert (clocks.skew.skew_s, clocks.skew.agrees, clocks.skew.text) == (None, False, "")
    assert clocks.skew.allow("BindAccount")


@pytest.mark.parametrize(
    ("step_s", "agrees"), [(0.0, True), (299.0, True), (301.0, False), (-301.0, False), (MONTH_S, False)]
)
def test_wall_clock_set_after_a_response_is_noticed_without_another(
    clocks: Clocks, step_s: float, agrees: bool
) -> None:
    clocks.answer()
    assert clocks.skew.agrees
    clocks.since_boot_s += 3 * 86_400.0
    clocks.ahead_s = step_s
    assert clocks.skew.agrees is agrees
    assert clocks.skew.skew_s == pytest.approx(-step_s, abs=0.01)


def test_clock_that_is_wrong_from_the_start_never_agrees(clocks: Clocks) -> None:
    clocks.ahead_s = MONTH_S
    clocks.answer()
    assert not clocks.skew.agrees
    clocks.ahead_s = 0.0
    assert clocks.skew.agrees, "it was set right"


def test_response_outside_the_window_stops_only_bind_account(clocks: Clocks) -> None:
    clocks.ahead_s = 600.0
    clocks.answer()
    for _ in range(3):
        assert not clocks.skew.allow("BindAccount")
        assert clocks.skew.allow("SyncLinkage")
    assert clocks.skew.stops("BindAccount")
    assert clocks.skew.would_reject("BindAccount")


def test_one_probe_is_sent_in_five_minutes(clocks: Clocks) -> None:
    clocks.ahead_s = 600.0
    clocks.answer()
    for _ in range(3):
        clocks.since_boot_s += PROBE_EVERY_S - 1
        assert not clocks.skew.allow("BindAccount")
        clocks.since_boot_s += 1
        assert [clocks.skew.allow("BindAccount") for _ in range(3)] == [True, False, False]
        clocks.answer()


def test_verified_response_inside_the_window_ends_the_stop(clocks: Clocks) -> None:
    clocks.skew.heard(600.0, in_window=False)
    clocks.answer()
    assert clocks.skew.allow("BindAccount")


@pytest.mark.parametrize(("ahead_s", "admits"), [(600.5, False), (602.0, True), (0.0, True), (590.0, True)])
def test_setting_the_wall_clock_ends_the_stop_and_slewing_it_does_not(
    clocks: Clocks, ahead_s: float, admits: bool
) -> None:
    clocks.ahead_s = 600.0
    clocks.answer()
    clocks.ahead_s = ahead_s
    assert clocks.skew.allow("BindAccount") is admits
    assert clocks.skew.stops("BindAccount") is not admits


def test_skew_is_logged_once_and_once_when_it_ends(clocks: Clocks, log_lines: Any) -> None:
    clocks.ahead_s = 600.0
    for _ in range(3):
        clocks.answer()
    (line,) = log_lines.of("clock skew")
    assert (line["level"], line["clock_skew_s"]) == ("warning", -600)
    assert clocks.skew.text == "AlipayHK's clock is 600 s behind this gateway's"
    assert clocks.gauge() == pytest.approx(-600)
    clocks.ahead_s = 0.0
    for _ in range(3):
        clocks.skew.watch()
    (line,) = log_lines.of("clock skew ended")
    assert (line["level"], clocks.skew.text) == ("info", "")
    assert clocks.gauge() == pytest.approx(0, abs=0.01)


def test_wall_clock_set_while_nothing_is_called_is_logged(clocks: Clocks, log_lines: Any) -> None:
    clocks.answer()
    clocks.ahead_s = -3600.0
    clocks.skew.watch()
    assert clocks.skew.text == "AlipayHK's clock is 3600 s ahead of this gateway's"
    assert len(log_lines.of("clock skew")) == 1
