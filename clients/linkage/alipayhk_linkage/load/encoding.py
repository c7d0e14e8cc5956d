"""Spreads in HdrHistogram's own compressed form, base64, which its tools in every language read."""

from __future__ import annotations

from typing import Final

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped,unused-ignore]

from .spread import HIGHEST_US, LOWEST_US, Spread, bounds_of, slot_of

DIGITS: Final = 3


def encode(spread: Spread) -> str:
    """Write a spread."""
    histogram = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
    for slot, count in spread.slots.items():
        histogram.record_value(bounds_of(slot)[0], count)
    return str(histogram.encode().decode("ascii"))


def decode(text: str, *, max_us: int, sum_us: int) -> Spread:
    """Read a spread, with what HdrHistogram keeps to 3 digits only; raise ValueError for what is none."""
    try:
        histogram = HdrHistogram.decode(text)
        counts = {index: int(count) for index, count in enumerate(histogram.counts) if count}
        made_as = (histogram.lowest_trackable_value, histogram.significant_figures)
    except Exception as error:  # the library raises whatever comes
        raise ValueError("not an HdrHistogram") from error
    if made_as != (LOWEST_US, DIGITS) or (counts and max(counts) > slot_of(HIGHEST_US)):
        raise ValueError("an HdrHistogram of another range")
    spread = Spread(count=sum(counts.values()), sum_us=sum_us, max_us=max_us)
    spread.slots.update(counts)
    return spread
