"""Other texts for the same time, and times near it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote

from ..wire.clock import lenient_time_of, time_text

_YEAR_MIN: Final = 1971
_YEAR_MAX: Final = 9990
NEAR_S: Final = 3
FAR_S: Final = 900
_OFFSETS: Final = (0, 8 * 60, 5 * 60 + 30, 7 * 60, 9 * 60)
"""Offsets from UTC in minutes: UTC, Hong Kong, and AlipayHK's samples among others."""


def other_texts(text: str, headers: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield a noun phrase and a text for each other way to write a time; `headers` may have other times."""
    yield "an empty time", ""
    yield "the time with + as a space", text.replace("+", " ")
    yield "the time, percent-encoded", quote(text, safe="", errors="surrogateescape")
    yield "the time with : not encoded and + encoded", text.replace("+", "%2B")
    for header in headers:
        yield "the time of another header", header
    time = _time_of(text)
    if time is None:
        return
    yield from _forms(time)
    for header in headers:
        if other := _http_date_of(header):
            yield "the time of another header", time_text(other.astimezone(time.tzinfo))
    for seconds in range(-NEAR_S, NEAR_S + 1):
        if seconds:
            yield f"the time moved by {seconds:+d} s", _moved(text, time, seconds)


def far_texts(text: str) -> Iterator[tuple[str, str]]:
    """Yield the times up to 15 minutes from it, and up to 14 hours from it in whole hours."""
    time = _time_of(text)
    if time is None:
        return
    for seconds in (*range(-FAR_S, FAR_S + 1), *range(-14 * 3600, 14 * 3600 + 1, 1800)):
        yield f"the time moved by {seconds:+d} s", _moved(text, time, seconds)


def _forms(time: datetime) -> Iterator[tuple[str, str]]:
    for minutes in _OFFSETS:
        zone = timezone(timedelta(minutes=minutes))
        yield "the same time in another zone", time_text(time.astimezone(zone))
        yield "the same clock time in another zone", time_text(time.replace(tzinfo=zone))
    utc = time.astimezone(UTC)
    yield "the same time with Z", utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    yield "the same time with Z and milliseconds", utc.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    yield "the same clock time with Z", time.strftime("%Y-%m-%dT%H:%M:%SZ")
    yield "the time without its zone", time.strftime("%Y-%m-%dT%H:%M:%S")
    yield "the time with a space and without its zone", time.strftime("%Y-%m-%d %H:%M:%S")
    yield "the time with a zone without colon", time.strftime("%Y-%m-%dT%H:%M:%S%z")
    yield "the time with milliseconds", time.isoformat(timespec="milliseconds")
    yield "the time without a fraction", time_text(time)
    seconds = int(time.timestamp())
    yield "the time in seconds since 1970", str(seconds)
    yield "the time in milliseconds since 1970", str(int(time.timestamp() * 1000))


def _moved(text: str, time: datetime, seconds: int) -> str:
    written = time_text(time + timedelta(seconds=seconds))
    return written.replace("+00:00", "Z") if text.endswith("Z") else written


def _time_of(text: str) -> datetime | None:
    try:
        time = lenient_time_of(text)
    except ValueError:
        return None
    return time if _YEAR_MIN <= time.year <= _YEAR_MAX else None


def _http_date_of(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text[:64])
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else None
