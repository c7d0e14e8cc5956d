"""The limits of the process, and the share of its file descriptors for callers' connections.

An idle connection costs its sender nothing, but costs the gateway a descriptor. If callers could use all
descriptors, connections to AlipayHK, the admin port and the ledger would fail.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

LIMIT_MAX: Final = 1 << 20
"""Upper bound of the limit: an unlimited one slows programs that close every possible descriptor."""
CALLERS_MAX: Final = 10_000
"""Maximum number of callers' connections, even if the limit allows more."""
OWN: Final = 128
"""Descriptors for the process itself: the ledger, logs, event loops, resolvers, and open files."""


def set_limits() -> None:
    """Set the limits of this process and its future children.

    Raise the number of file descriptors to the hard limit or LIMIT_MAX. Allow no core dumps: they would
    contain keys and personal data.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = LIMIT_MAX if hard == resource.RLIM_INFINITY else min(hard, LIMIT_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # some systems allow less than the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int:
    """Return the maximum number of descriptors of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LIMIT_MAX if soft == resource.RLIM_INFINITY else soft


def for_callers(limit: int, reserved: int) -> int:
    """Return the maximum number of callers' connections; `reserved` is for AlipayHK, operators and probes.

    If the limit is too low for that, callers get a quarter of it.
    """
    return min(max(limit - reserved - OWN, limit // 4), CALLERS_MAX)


def is_low(limit: int, reserved: int) -> bool:
    """Return whether the limit is too low to reserve that many descriptors."""
    return limit - reserved - OWN < limit // 4
