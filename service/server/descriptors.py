"""File descriptors: the process's limit, and how many of them callers' connections may take.

A connection that does nothing costs its sender nothing and the gateway a descriptor. When strangers hold
all of them, connections to AlipayHK, the admin port and the ledger fail, so callers get a share only.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Final

LIMIT_MAX: Final = 1 << 20
"""The most that is asked for: a limit without end costs time in programs that close every descriptor."""
CALLERS_MAX: Final = 10_000
"""The most connections of callers, whatever the limit."""
OWN: Final = 128
"""What the process needs itself: the ledger, logs, event loops, resolvers, files that are being read."""


def raise_limit() -> None:
    """Raise the limit of this process, and of those that it starts, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = LIMIT_MAX if hard == resource.RLIM_INFINITY else min(hard, LIMIT_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a system may allow less than its hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LIMIT_MAX if soft == resource.RLIM_INFINITY else soft


def for_callers(limit: int, reserved: int) -> int:
    """Return how many connections callers may hold; `reserved` are for AlipayHK, operators and probes.

    If the limit is too low for that, callers get a quarter of it.
    """
    return min(max(limit - reserved - OWN, limit // 4), CALLERS_MAX)


def is_low(limit: int, reserved: int) -> bool:
    """Return whether callers can take descriptors that are meant for AlipayHK, operators or probes."""
    return limit - reserved - OWN < limit // 4
