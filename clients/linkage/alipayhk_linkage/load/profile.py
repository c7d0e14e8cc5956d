"""The rate over time, such as `hold:50/10s,ramp:50..500/30s,steps:100..500/5x6s,spike:50..500/3s`.

hold:RATE/DURATION          one rate
ramp:FROM..TO/DURATION      linear from one rate to the other
steps:FROM..TO/NxDURATION   N equal steps, each with this duration
spike:LOW..HIGH/DURATION    LOW for a third of the duration, HIGH for a third, LOW for a third
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from .amounts import positive_duration, rate, whole

STEPS_MIN: Final = 2
STEPS_MAX: Final = 1_000
_SHAPE: Final = re.compile(r"(?P<word>[a-z]+):(?P<rates>[^/]+)/(?P<times>.+)")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a profile, with a linear change of the rate."""

    start_rate: float
    """Calls per second at the start."""
    end_rate: float
    duration: float
    """In seconds."""

    @property
    def calls(self) -> float:
        """The number of calls that are due in this piece."""
        return (self.start_rate + self.end_rate) / 2 * self.duration

    def when(self, calls: float) -> float:
        """Return after how many seconds of this piece the given number of calls is due."""
        slope = (self.end_rate - self.start_rate) / self.duration
        # The root of start_rate*t + slope*t*t/2 = calls, in a form that is exact for a slope near 0.
        root = math.sqrt(max(0.0, self.start_rate * self.start_rate + 2 * slope * calls))
        return 2 * calls / (self.start_rate + root) if calls else 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """The rate over time, as consecutive pieces."""

    pieces: tuple[Piece, ...]

    @property
    def duration(self) -> float:
        """The total duration in seconds."""
        return math.fsum(piece.duration for piece in self.pieces)

    @property
    def calls(self) -> float:
        """The total number of calls that are due."""
        return math.fsum(piece.calls for piece in self.pieces)

    def times(self, counts: Iterable[float]) -> Iterator[float]:
        """Return when each of the ascending counts of calls is due, in seconds from the start."""
        pieces = iter(self.pieces)
        piece, since, before = next(pieces), 0.0, 0.0
        for count in counts:
            while count - before >= piece.calls:
                since, before = since + piece.duration, before + piece.calls
                following = next(pieces, None)
                if following is None:
                    return
                piece = following
            yield since + piece.when(count - before)


def constant(calls_per_s: float, seconds: float) -> Profile:
    """Return a profile with one constant rate."""
    return Profile((Piece(calls_per_s, calls_per_s, seconds),))


def profile(text: str) -> Profile:
    """Parse a profile; raise one ValueError that names every fault."""
    pieces: list[Piece] = []
    faults = []
    for part in text.split(","):
        try:
            pieces += _segment(part.strip())
        except ValueError as error:
            faults.append(f"{part.strip()!r}: {error}")
    if not faults and not any(piece.calls for piece in pieces):
        faults.append("the profile has no call: all rates are 0")
    if faults:
        raise ValueError("; ".join(faults))
    return Profile(tuple(pieces))


def _segment(text: str) -> list[Piece]:
    found = _SHAPE.fullmatch(text)
    if found is None or found["word"] not in _SHAPES:
        raise ValueError(f"must be one of {', '.join(_FORMS.values())}")
    try:
        return _SHAPES[found["word"]](found["rates"], found["times"])
    except ValueError as error:
        raise ValueError(f"{error} (example: {_FORMS[found['word']]})") from None


def _two(rates: str) -> tuple[float, float]:
    low, dots, high = rates.partition("..")
    if not dots:
        raise ValueError(f"{rates!r} is not a pair of rates, FROM..TO")
    return rate(low), rate(high)


def _hold(rates: str, times: str) -> list[Piece]:
    calls_per_s = rate(rates)
    return [Piece(calls_per_s, calls_per_s, positive_duration(times))]


def _ramp(rates: str, times: str) -> list[Piece]:
    return [Piece(*_two(rates), positive_duration(times))]


def _steps(rates: str, times: str) -> list[Piece]:
    low, high = _two(rates)
    number, x, each = times.partition("x")
    if not x:
        raise ValueError(f"{times!r} is not the number of steps and the duration of each, NxDURATION")
    steps = whole(STEPS_MIN, STEPS_MAX)(number)
    heights = [low + (high - low) * step / (steps - 1) for step in range(steps)]
    return [Piece(height, height, positive_duration(each)) for height in heights]


def _spike(rates: str, times: str) -> list[Piece]:
    low, high = _two(rates)
    third = positive_duration(times) / 3
    return [Piece(height, height, third) for height in (low, high, low)]


_SHAPES: Final[dict[str, Callable[[str, str], list[Piece]]]] = {
    "hold": _hold,
    "ramp": _ramp,
    "steps": _steps,
    "spike": _spike,
}
_FORMS: Final = {
    "hold": "hold:50/10s",
    "ramp": "ramp:10..200/30s",
    "steps": "steps:100..500/5x6s",
    "spike": "spike:50..500/3s",
}
