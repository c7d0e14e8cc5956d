"""AlipayHK's times: ISO-8601 to the second, with offset."""

from __future__ import annotations

import time as system
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from .errors import Malformed, OutsideWindow

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
    earliest, latest = _between(sent_at, now)
    window = timedelta(seconds=window_s)
    if not earliest - window <= time <= latest + window:
        raise OutsideWindow(skew_s(time, sent_at=sent_at, now=now))
    return time


def skew_s(time: datetime, *, sent_at: datetime, now: datetime) -> float:
    """Return the time of an answer minus ours, in seconds; 0 where it lies between sending and now.

    Such a time proves no difference. Any other is compared with the middle of the call, and taken for the
    middle of its second, since it is cut to whole seconds.
    """
    earliest, latest = _between(sent_at, now)
    if earliest <= time <= latest:
        return 0.0
    return (time - sent_at - (now - sent_at) / 2).total_seconds() + 0.5


def _between(sent_at: datetime, now: datetime) -> tuple[datetime, datetime]:
    """Return both in order, the earlier one cut to its second: the clock may be set back during a call."""
    return min(sent_at, now).replace(microsecond=0), max(sent_at, now)
