"""95 % confidence intervals, and that of a difference.

A percentile's interval is the hull of two: binomial order statistics (exact for independent calls), and a
bootstrap of whole seconds, because calls of one second share its fate. A rate's is Wilson's. Two of them
make the interval of their difference by the method of variance estimates recovery (Newcombe, 1998).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .spread import Spread, bounds_of, together

Z: Final = 1.959964
RESAMPLES: Final = 500


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value between its bounds."""

    value: float
    low: float
    high: float


def percentile(seconds: Sequence[Spread], percent: float) -> Estimate:
    """Estimate a percentile, in microseconds, from the seconds of a run."""
    seconds = [spread for spread in seconds if spread.count]
    total = together(seconds)
    if not total.count:
        return Estimate(0.0, 0.0, 0.0)
    share = percent / 100
    spread = Z * math.sqrt(share * (1 - share) / total.count)
    low, value, high = total.at(
        *(100 * min(max(at, 0.0), 1.0) for at in (share - spread, share, share + spread))
    )
    resampled = _resampled(seconds, share)
    edge = int(RESAMPLES * 0.025)
    return Estimate(value, min(low, resampled[edge]), max(high, resampled[-1 - edge]))


def _resampled(seconds: Sequence[Spread], share: float) -> list[float]:
    """Draw as many seconds with replacement, again and again; return the percentiles, ascending."""
    draw = random.Random(0)  # noqa: S311  (the same interval for the same runs)
    # From the slowest down: only the tail is ever walked through.
    slots = sorted(
        (
            (slot, number, count)
            for number, spread in enumerate(seconds)
            for slot, count in spread.slots.items()
        ),
        reverse=True,
    )
    values = []
    for _ in range(RESAMPLES):
        weights = [0] * len(seconds)
        for number in draw.choices(range(len(seconds)), k=len(seconds)):
            weights[number] += 1
        calls = sum(weight * spread.count for weight, spread in zip(weights, seconds, strict=True))
        above, at = calls - max(1, int(share * calls + 0.5)), 0
        for at, number, count in slots:  # noqa: B007  (where it stops is what is asked for)
            above -= weights[number] * count
            if above < 0:
                break
        values.append(float(bounds_of(at)[1]))
    return sorted(values)


def rate(events: int, of: int) -> Estimate:
    """Estimate a rate by Wilson's score interval."""
    if not of:
        return Estimate(0.0, 0.0, 1.0)
    share, z2 = events / of, Z * Z
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return Estimate(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def difference(base: Estimate, now: Estimate) -> Estimate:
    """Estimate by how much `now` lies above `base`."""
    value = now.value - base.value
    return Estimate(
        value,
        value - math.hypot(now.value - now.low, base.high - base.value),
        value + math.hypot(now.high - now.value, base.value - base.low),
    )
