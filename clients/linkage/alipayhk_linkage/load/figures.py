"""The four plots of a report."""

from __future__ import annotations

import math
from typing import Any, Final

from .comparison import read_histogram
from .histogram import Histogram
from .plots import Axis, Line, Plot, Point, evenly, over_decades, seconds_axis
from .text_report import ms

NINES: Final = 4
"""The percentile axis ends at 99.99. Each further nine (90, 99, 99.9, ...) takes the same width."""
SAMPLES: Final = 160
SHORTEST_S: Final = 0.1
"""The shortest part of a second that is shown as a point."""


def plots(report: dict[str, Any]) -> list[Plot]:
    """Return the plots of a report."""
    return [_percentiles(report), _latency(report), _throughput(report), _trouble(report)]


def _percentiles(report: dict[str, Any]) -> Plot:
    lines = []
    for group, measure, label, style in (
        ("success", "latency", "latency of successes", "first"),
        ("success", "service", "their service time", "second"),
        ("error", "latency", "latency of errors", "bad"),
    ):
        histogram = read_histogram(report[group][measure])
        closed = report["settings"]["loop"] == "closed" and measure == "service"
        if histogram.count and not closed:
            lines.append(Line(label, style, _curve(histogram)))
    values = [value for line in lines for _, value in line.points if value is not None]
    ticks = [(float(nines), label) for nines, label in enumerate(("0", "90", "99", "99.9", "99.99"))]
    latency = report["success"]["latency"]
    return Plot(
        "percentiles",
        "Latency by percentile",
        f"Latency of successes: p50 {ms(latency['p50_us'])} ms,"
        f" p99 {ms(latency['p99_us'])} ms, maximum {ms(latency['max_us'])} ms.",
        Axis("% of calls that took no longer, log scale towards 100", 0.0, NINES, ticks),
        evenly("ms", values, least=0.001),
        lines,
        "" if lines else "no call finished",
    )


def _curve(histogram: Histogram) -> list[Point]:
    """Return the percentiles that the number of calls can resolve. The last point is the slowest call."""
    end = min(math.log10(histogram.count), NINES) if histogram.count > 1 else 0.0
    nines = [end * at / SAMPLES for at in range(SAMPLES + 1)]
    values = histogram.at(*(100 * (1 - 10**-nine) for nine in nines))
    points: list[Point] = [(nine, value / 1e3) for nine, value in zip(nines, values, strict=True)]
    return [*points, (end, histogram.max_us / 1e3)] if end < NINES else points


def _by_second(report: dict[str, Any]) -> list[dict[str, Any] | None]:
    """Return each second of the measured time; None for a second without any call."""
    found = {second["at_s"]: second for second in report["seconds"]}
    # If a run was interrupted just after a full second, the rest is too short for a rate.
    return [found.get(at) for at in range(max(1, math.ceil(report["run"]["measured_s"] - SHORTEST_S)))]


def _time(report: dict[str, Any]) -> Axis:
    return seconds_axis(max(report["run"]["measured_s"], 1.0))


def _middle(at: int, second: dict[str, Any] | None) -> float:
    return at + (second["lasts_s"] if second else 1.0) / 2


def _latency(report: dict[str, Any]) -> Plot:
    lines = []
    for figure, label, style in (
        ("max", "slowest", "third"),
        ("p99", "p99", "first"),
        ("p50", "p50", "second"),
    ):
        points: list[Point] = [
            (
                _middle(at, second),
                second["latency"][f"{figure}_us"] / 1e3 if second and second["latency"]["count"] else None,
            )
            for at, second in enumerate(_by_second(report))
        ]
        lines.append(Line(label, style, points))
    values = [value for line in lines for _, value in line.points if value is not None]
    return Plot(
        "latency",
        "Latency over time",
        f"p50, p99 and maximum latency of the calls that succeeded in each second. Maximum of the run:"
        f" {ms(report['success']['latency']['max_us'])} ms.",
        _time(report),
        over_decades("ms", values),
        lines,
        "" if values else "no call succeeded",
    )


def _rate(report: dict[str, Any], *members: str) -> list[Point]:
    return [
        (_middle(at, second), sum(map(second.__getitem__, members)) / second["lasts_s"] if second else 0.0)
        for at, second in enumerate(_by_second(report))
    ]


def _throughput(report: dict[str, Any]) -> Plot:
    lines = [Line("succeeded", "first", _rate(report, "success", "carried_over"))]
    if report["settings"]["loop"] == "open":
        lines.insert(0, Line("due", "third", _rate(report, "due")))
    if report["apart"]["count"]:
        lines.append(Line("set apart", "second", _rate(report, "apart")))
    values = [value for line in lines for _, value in line.points if value is not None]
    rates = report["rates"]
    due = f"{rates['intended']:.1f} arrivals per second were due; " if rates["intended"] is not None else ""
    return Plot(
        "throughput",
        "Throughput over time",
        f"{due}{rates['succeeded']:.1f} calls per second succeeded.",
        _time(report),
        evenly("calls per second", values),
        lines,
    )


def _trouble(report: dict[str, Any]) -> Plot:
    arrivals = report["arrivals"]
    lines = [
        Line(label, style, points if any(value for _, value in points) else ())
        for member, label, style in (
            ("error", "errors", "bad"),
            ("dropped", "dropped", "second"),
            ("late", "late", "third"),
        )
        for points in [_rate(report, member)]
    ]
    values = [value for line in lines for _, value in line.points if value is not None]
    return Plot(
        "trouble",
        "Errors, dropped and late over time",
        f"{report['error']['count']} errors, {arrivals['dropped']} arrivals dropped,"
        f" {arrivals['late']} started late.",
        _time(report),
        evenly("calls per second", values),
        lines,
        "" if any(values) else "none",
    )
