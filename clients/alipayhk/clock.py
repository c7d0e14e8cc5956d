"""AlipayHK's times: ISO-8601 to the second, with offset."""

from __future__ import annotations

import time as system
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from .errors import Malformed, Replayed

Now = Callable[[], datetime]
"""Tells the time, always with an offset."""


_SINCE_BOOT: Final = getattr(system, "CLOCK_BOOTTIME", system.CLOCK_MONOTONIC)
"""CLOCK_BOOTTIME also counts while the machine is suspended. Only Linux has it."""


def now_utc() -> datetime:
    """Tell the time."""
    return datetime.now(UTC)


def since_boot_s() -> float:
    """Return the seconds since this machine started; no change of the wall clock moves them."""
    return system.clock_gettime(_SINCE_BOOT)


def time_text(time: datetime) -> str:
    """Write a time as `2024-05-22T06:42:21+05:30`."""
    return time.isoformat(timespec="seconds")


def time_of(text: str) -> datetime:
    """Read a time that says its offset; raise ValueError, without the text, for anything else."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not an ISO-8601 time") from None
    if time.tzinfo is None:
        raise ValueError("a time without an offset")
    return time


def response_time_of(text: str, *, sent_at: datetime, now: datetime, window_s: float) -> datetime:
    """Read the time of an answer, which must lie between sending and now, give or take the window.

    The signature of an answer is not bound to our request, so an old signed success verifies: its
    age is what gives it away. No cache of seen signatures stands here, because two honest answers of
    one second carry the same one.
    """
    try:
        time = time_of(text)
    except ValueError as error:
        raise Malformed(str(error)) from None
    window = timedelta(seconds=window_s)
    if not sent_at.replace(microsecond=0) - window <= time <= now + window:
        raise Replayed("the answer's time is outside the window")
    return time
