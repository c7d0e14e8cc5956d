"""AlipayHK's times: ISO-8601 to the second, with the offset from UTC.

Request-Time and Response-Time: https://docs.alipay.hk/alipayhkdocs/hk/gcmc/apifund. `reqTime` and
`respTime`: https://docs.alipay.hk/alipayhkdocs/hk/a_points_display/api_structure_v1
"""

from __future__ import annotations

import re
import time as system
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from . import lenient
from .errors import Malformed, OutsideWindow

Now = Callable[[], datetime]
"""Returns the current time, always with an offset."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_USUAL_FORM: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_SINCE_BOOT: Final = getattr(system, "CLOCK_BOOTTIME", system.CLOCK_MONOTONIC)
"""CLOCK_BOOTTIME also counts while the machine is suspended; only Linux has it."""
since_boot_s: Final = partial(system.clock_gettime, _SINCE_BOOT)
"""Returns the seconds since this machine started; changes of the wall clock do not affect them."""


def now_utc() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def time_text(time: datetime) -> str:
    """Format a time as `2024-05-22T06:42:21+05:30`."""
    return time.isoformat(timespec="seconds")


def time_of(text: str) -> datetime:
    """Parse a time with an offset; otherwise raise a ValueError that does not quote the text."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not an ISO-8601 time") from None
    if time.tzinfo is None:
        raise ValueError("a time without an offset")
    return time


def lenient_time_of(value: object) -> datetime:
    """Parse a response's time, also in the variants of `lenient`; otherwise raise a constant ValueError."""
    text = value if isinstance(value, str) else str(value) if isinstance(value, int) else ""
    if _USUAL_FORM.fullmatch(text):
        return time_of(text)
    if lenient.MILLISECONDS.fullmatch(text):
        return _EPOCH + timedelta(milliseconds=int(text))
    return time_of(lenient.iso_time(text))


def response_time_of(value: object, *, sent_at: datetime, now: datetime, window_s: float) -> datetime:
    """Parse a response's time; raise Malformed, or OutsideWindow if it is too early or too late.

    It may be up to `window_s` before the request was sealed or after now.

    The signature of a response does not cover our request, so the signature of an old success verifies.
    Only its time shows that it is old. A cache of seen signatures would not work: two correct responses of
    the same second have the same signature. AlipayHK documents no window; its size is a setting.
    """
    try:
        time = lenient_time_of(value)
    except ValueError as error:
        raise Malformed(str(error)) from None
    earliest, latest = _between(sent_at, now)
    if earliest <= time <= latest:
        return time
    window = timedelta(seconds=window_s)
    if not earliest - window <= time <= latest + window:
        raise OutsideWindow(skew_s(time, sent_at=sent_at, now=now))
    return time


def skew_s(time: datetime, *, sent_at: datetime, now: datetime) -> float:
    """Return a response's time minus ours, in seconds; 0 if it is between sending and now.

    A time between the two is no evidence of clock skew. Any other time is compared with the middle of the
    call. It was cut to whole seconds, so half a second is added.
    """
    earliest, latest = _between(sent_at, now)
    if earliest <= time <= latest:
        return 0.0
    return (time - sent_at - (now - sent_at) / 2).total_seconds() + 0.5


def _between(sent_at: datetime, now: datetime) -> tuple[datetime, datetime]:
    """Return both times in order, the first cut to whole seconds: a clock can be set back during a call."""
    return min(sent_at, now).replace(microsecond=0), max(sent_at, now)
