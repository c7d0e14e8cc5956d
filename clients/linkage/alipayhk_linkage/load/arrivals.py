"""The intended start of each call. It is fixed before the run, and nothing changes it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from .profile import Profile


def intended_times(
    profile: Profile, *, poisson: bool, seed: str, share: tuple[int, int] = (0, 1)
) -> Iterator[float]:
    """Return the intended starts of one process's calls, in seconds from the start of the run.

    `share` is (index of the process, number of processes). Constant arrivals are assigned to the processes
    in turn, so that all of them together are evenly spaced. The sum of independent Poisson arrivals is
    Poisson.
    """
    process, processes = share
    counts: Iterator[float]
    if poisson:
        # A Poisson process of any rate is one of rate 1 with its time stretched by the profile.
        gaps = random.Random(f"{seed} arrivals {process}")  # noqa: S311  (no secret)
        counts = itertools.accumulate(gaps.expovariate(1 / processes) for _ in itertools.count())
    else:
        counts = (float(number) for number in itertools.count(process, processes))
    return profile.times(counts)
