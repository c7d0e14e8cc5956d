"""Line plots as SVG. The style sheet of the page defines their colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

WIDTH: Final = 520
HEIGHT: Final = 300
LEFT: Final = 56
RIGHT: Final = 26
TOP: Final = 28
BOTTOM: Final = 46
DOTS_MAX: Final = 40
"""Lines with at most this many points show each point as a dot."""

Point = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale with its ticks."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    is_log: bool = False

    def at(self, value: float) -> float:
        """Return the position of a value on the axis, from 0 to 1."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Line:
    """One line. It has a gap at points without a value."""

    label: str
    style: str
    """A class of the style sheet, which gives the line a colour and a dash pattern, both distinct."""
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot."""

    name: str
    title: str
    description: str
    """A text alternative for screen readers."""
    x: Axis
    y: Axis
    lines: Sequence[Line] = field(default_factory=tuple)
    note: str = ""
    """A text in the middle of the plot."""


def evenly(label: str, values: Sequence[float], *, least: float = 1.0) -> Axis:
    """Return a linear axis from 0 to the largest value, with ticks at round numbers."""
    high = max([least, *values])
    step = _round_step(high / 4)
    count = math.ceil(high / step - 1e-9)
    return Axis(label, 0.0, count * step, [(at * step, _number(at * step)) for at in range(count + 1)])


def over_decades(label: str, values: Sequence[float]) -> Axis:
    """Return a logarithmic axis if the values differ by a factor of 20 or more, else a linear one."""
    positive = [value for value in values if value > 0]
    if not positive or max(positive) / min(positive) < 20:  # noqa: PLR2004
        return evenly(label, values, least=1e-3)
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    ticks = [(10.0**decade, _number(10.0**decade)) for decade in range(low, high + 1)]
    return Axis(f"{label}, log scale", 10.0**low, 10.0**high, ticks, is_log=True)


def seconds_axis(seconds: float) -> Axis:
    """Return a time axis from 0 to `seconds`."""
    step = max(1.0, _round_step(seconds / 6)) if seconds > 2 else _round_step(seconds / 4)  # noqa: PLR2004
    count = int(seconds / step + 1e-9)
    return Axis("seconds", 0.0, seconds, [(at * step, _number(at * step)) for at in range(count + 1)])


def svg(plot: Plot) -> str:
    """Return a plot as SVG."""
    name = escape(plot.name)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}-t {name}-d">',
        f'<title id="{name}-t">{escape(plot.title)}</title>',
        f'<desc id="{name}-d">{escape(plot.description)}</desc>',
        *_grid(plot),
        *(_drawn(line, plot) for line in plot.lines),
    ]
    if plot.note:
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(
            f'<text class="note" x="{middle}" y="{(TOP + HEIGHT - BOTTOM) / 2}">{escape(plot.note)}</text>'
        )
    return "".join([*parts, "</svg>"])


def legend(plot: Plot) -> str:
    """Return the legend of a plot as HTML."""
    entries = "".join(
        '<li><svg viewBox="0 0 28 8" aria-hidden="true">'
        f'<path class="line {line.style}" d="M0 4H28"/></svg>{escape(line.label)}</li>'
        for line in plot.lines
    )
    return f'<ul class="legend">{entries}</ul>'


def _grid(plot: Plot) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, label in plot.y.ticks:
        y = _y(plot, value)
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{right}"/>')
        parts.append(
            f'<text class="tick" text-anchor="end" x="{LEFT - 8}" y="{y + 4}">{escape(label)}</text>'
        )
    for value, label in plot.x.ticks:
        x = _x(plot, value)
        parts.append(f'<path class="axis" d="M{x} {bottom}v5"/>')
        parts.append(
            f'<text class="tick" text-anchor="middle" x="{x}" y="{bottom + 19}">{escape(label)}</text>'
        )
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    middle = (LEFT + right) / 2
    x_label, y_label = escape(plot.x.label), escape(plot.y.label)
    parts.append(f'<text class="label" text-anchor="middle" x="{middle}" y="{HEIGHT - 6}">{x_label}</text>')
    parts.append(f'<text class="label" x="4" y="14">{y_label}</text>')
    return parts


def _drawn(line: Line, plot: Plot) -> str:
    path, dots, pen_is_down = [], [], False
    for x, y in line.points:
        if y is None:
            pen_is_down = False
            continue
        across, down = _x(plot, x), _y(plot, y)
        path.append(f"{'L' if pen_is_down else 'M'}{across} {down}")
        dots.append(f'<circle cx="{across}" cy="{down}" r="2.5"/>')
        pen_is_down = True
    marks = f'<g class="dots {line.style}">{"".join(dots)}</g>' if len(line.points) <= DOTS_MAX else ""
    return f'<path class="line {line.style}" d="{"".join(path)}"/>{marks}' if path else ""


def _x(plot: Plot, value: float) -> float:
    return round(LEFT + plot.x.at(value) * (WIDTH - LEFT - RIGHT), 1)


def _y(plot: Plot, value: float) -> float:
    return round(HEIGHT - BOTTOM - plot.y.at(value) * (HEIGHT - TOP - BOTTOM), 1)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def _number(value: float) -> str:
    return f"{value:.6g}"
