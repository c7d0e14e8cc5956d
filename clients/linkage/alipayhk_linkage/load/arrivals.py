"""When each call is meant to start: known beforehand, and moved by nothing that happens."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from .profile import Profile


def intended_times(
    profile: Profile, *, poisson: bool, seed: str, share: tuple[int, int] = (0, 1)
) -> Iterator[float]:
    """Return the intended starts of one process's calls, in seconds from the start of the run.

    `share` is (which, of how many). Constant arrivals are dealt out in turn, so that together they are
    evenly spaced; the sum of independent Poisson arrivals is Poisson again.
    """
    which, of = share
    counts: Iterator[float]
    if poisson:
        # A Poisson process of any rate is one of rate 1 whose time is stretched by the profile.
        gaps = random.Random(f"{seed} arrivals {which}")  # noqa: S311  (no secret)
        counts = itertools.accumulate(gaps.expovariate(1 / of) for _ in itertools.count())
    else:
        counts = (float(number) for number in itertools.count(which, of))
    return profile.times(counts)
