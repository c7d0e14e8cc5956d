"""AlipayHK's time format: to the second, with an offset."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.alipayhk.wire import clock, errors
from tests.alipayhk.sides import modest

MOMENT = datetime(2024, 5, 22, 6, 42, 21, 987_654, UTC)

LIKE_A_TIME: Final = (
    "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9](:[0-6][0-9]){0,2}"
    "([.,][0-9]{1,9})?(Z|[+-][0-2][0-9](:?[0-6][0-9]){0,2})?"
)


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        (UTC, "2024-05-22T06:42:21+00:00"),
        (timezone(timedelta(hours=8)), "2024-05-22T06:42:21+08:00"),
        (timezone(timedelta(hours=5, minutes=30)), "2024-05-22T06:42:21+05:30"),
        (timezone(-timedelta(hours=3, minutes=30)), "2024-05-22T06:42:21-03:30"),
    ],
    ids=str,
)
def test_time_is_written_to_the_second_with_its_offset(zone: timezone, text: str) -> None:
    assert clock.time_text(MOMENT.replace(tzinfo=zone)) == text
    assert clock.time_of(text) == MOMENT.replace(microsecond=0, tzinfo=zone)


@pytest.mark.parametrize(
    "text", ["2024-05-22T01:12:21Z", "2024-05-22T09:12:21+08:00", "2024-05-22T06:42:21.000+05:30"]
)
def test_same_moment_is_read_from_every_time_zone(text: str) -> None:
    assert clock.time_of(text) == datetime(2024, 5, 22, 1, 12, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "now", "2024-05-22T06:42:21", "2024-02-30T00:00:00Z", "2024-05-22T06:42:21+25:00"]
)
def test_text_that_is_not_a_time_with_an_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        clock.time_of(text)


def test_clock_has_an_offset() -> None:
    assert clock.now_utc().utcoffset() == timedelta(0)


@modest(200)
@given(st.text() | st.from_regex(LIKE_A_TIME, fullmatch=True))
def test_arbitrary_text_is_a_time_or_a_constant_error(text: str) -> None:
    said = ""
    try:
        assert clock.time_of(text).tzinfo is not None
    except ValueError as error:
        said = str(error)
    assert said in {"", "not an ISO-8601 time", "a time without an offset"}


@modest(100)
@given(st.datetimes(timezones=st.timezones() | st.just(UTC)))
def test_every_written_time_is_read_back(time: datetime) -> None:
    # Historical offsets have seconds; ISO-8601 has no form for them, but Python reads and writes them.
    offset = time.utcoffset()
    assert offset is not None
    written = time.replace(microsecond=0, tzinfo=timezone(offset))
    assert clock.time_of(clock.time_text(time)) == written


@pytest.mark.parametrize(
    ("late_s", "skew_s"), [(0.0, 0.0), (2.0, 0.0), (4.0, 0.0), (5.0, 3.5), (-1.0, -2.5)], ids=str
)
def test_skew_is_zero_during_the_call_and_else_counts_from_its_middle(late_s: float, skew_s: float) -> None:
    sent_at, now = MOMENT.replace(microsecond=0), MOMENT.replace(microsecond=0) + timedelta(seconds=4)
    time = sent_at + timedelta(seconds=late_s)
    assert clock.skew_s(time, sent_at=sent_at, now=now) == skew_s


@pytest.mark.parametrize(
    ("late_ms", "is_inside"), [(-3_001, False), (-3_000, True), (7_000, True), (7_001, False)], ids=str
)
def test_window_includes_both_of_its_ends(late_ms: int, is_inside: bool) -> None:
    sent_at, now = MOMENT.replace(microsecond=0), MOMENT.replace(microsecond=0) + timedelta(seconds=4)
    value = int(sent_at.timestamp()) * 1000 + late_ms
    with nullcontext() if is_inside else pytest.raises(errors.OutsideWindow):
        clock.response_time_of(value, sent_at=sent_at, now=now, window_s=3.0)
