"""95 % confidence intervals for percentiles, rates, and their differences.

The interval of a percentile is the hull of two intervals: binomial order statistics (exact for independent
calls), and a bootstrap of whole seconds, because the calls within one second are correlated. The interval
of a rate is Wilson's score interval. The interval of a difference uses the method of variance estimates
recovery (MOVER; Newcombe 1998,
https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C873::AID-SIM779%3E3.0.CO;2-I).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .histogram import Histogram, bounds_of, merged

Z: Final = 1.959964
RESAMPLES: Final = 500


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def percentile(seconds: Sequence[Histogram], percent: float) -> Estimate:
    """Estimate a percentile in microseconds from one histogram for each second of a run."""
    seconds = [histogram for histogram in seconds if histogram.count]
    total = merged(seconds)
    if not total.count:
        return Estimate(0.0, 0.0, 0.0)
    share = percent / 100
    half = Z * math.sqrt(share * (1 - share) / total.count)
    low, value, high = total.at(
        *(100 * min(max(at, 0.0), 1.0) for at in (share - half, share, share + half))
    )
    resampled = _resampled(seconds, share)
    edge = int(RESAMPLES * 0.025)
    return Estimate(value, min(low, resampled[edge]), max(high, resampled[-1 - edge]))


def _resampled(seconds: Sequence[Histogram], share: float) -> list[float]:
    """Resample the seconds with replacement RESAMPLES times; return the percentiles in ascending order."""
    draw = random.Random(0)  # noqa: S311  (a fixed seed: the same runs give the same interval)
    # Slowest first, so that the loop below visits only the tail.
    slots = sorted(
        (
            (slot, number, count)
            for number, histogram in enumerate(seconds)
            for slot, count in histogram.slots.items()
        ),
        reverse=True,
    )
    values = []
    for _ in range(RESAMPLES):
        weights = [0] * len(seconds)
        for number in draw.choices(range(len(seconds)), k=len(seconds)):
            weights[number] += 1
        calls = sum(weight * second.count for weight, second in zip(weights, seconds, strict=True))
        above, at = calls - max(1, int(share * calls + 0.5)), 0
        for at, number, count in slots:  # noqa: B007  (`at` is used after the loop)
            above -= weights[number] * count
            if above < 0:
                break
        values.append(float(bounds_of(at)[1]))
    return sorted(values)


def rate(events: int, of: int) -> Estimate:
    """Estimate the rate `events / of` with Wilson's score interval."""
    if not of:
        return Estimate(0.0, 0.0, 1.0)
    share, z2 = events / of, Z * Z
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return Estimate(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def difference(base: Estimate, now: Estimate) -> Estimate:
    """Estimate the difference `now - base`."""
    value = now.value - base.value
    return Estimate(
        value,
        value - math.hypot(now.value - now.low, base.high - base.value),
        value + math.hypot(now.high - now.value, base.value - base.low),
    )
