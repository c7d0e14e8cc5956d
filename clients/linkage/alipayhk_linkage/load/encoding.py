"""Convert histograms to HdrHistogram's compressed format in base64, which its tools in every language read.

https://github.com/HdrHistogram/HdrHistogram
"""

from __future__ import annotations

from typing import Final

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped,unused-ignore]

from .histogram import HIGHEST_US, LOWEST_US, Histogram, bounds_of, slot_of

DIGITS: Final = 3


def encode(histogram: Histogram) -> str:
    """Return the histogram in HdrHistogram's format."""
    encoder = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
    for slot, count in histogram.slots.items():
        encoder.record_value(bounds_of(slot)[0], count)
    return str(encoder.encode().decode("ascii"))


def decode(text: str, *, max_us: int, sum_us: int) -> Histogram:
    """Read a histogram; raise ValueError if the text is not one of this range and precision.

    `max_us` and `sum_us` are the exact values, which HdrHistogram keeps to 3 digits only.
    """
    try:
        decoded = HdrHistogram.decode(text)
        counts = {index: int(count) for index, count in enumerate(decoded.counts) if count}
        precision = (decoded.lowest_trackable_value, decoded.significant_figures)
    except Exception as error:  # the library raises many types of errors for invalid text
        raise ValueError("not an HdrHistogram") from error
    if precision != (LOWEST_US, DIGITS) or (counts and max(counts) > slot_of(HIGHEST_US)):
        raise ValueError("an HdrHistogram with another range or precision")
    histogram = Histogram(count=sum(counts.values()), sum_us=sum_us, max_us=max_us)
    histogram.slots.update(counts)
    return histogram
