"""The log consists of JSON lines with the allowed members only, whatever is logged."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.alipayhk.api import Api
from service.telemetry import logs
from service.telemetry.logs import (
    ALLOWED,
    LIBRARY_RECORDS_MAX,
    FrequentEvent,
    log,
    set_level,
    set_up_logs,
    stack_of,
)
from tests.service.fakes import FIXTURES_ARE_FINE, LogStream

FORBIDDEN: Final = (
    "user_id",
    "external_identity_value",
    "binding_target",
    "account_id",
    "open_id",
    "body",
    "content",
    "message",
    "exception",
    "exc_info",
    "result_message",
    "key",
    "signature",
    "headers",
)


class Secret:
    """An object with a secret in its text."""

    def __repr__(self) -> str:
        return "hunter2"


def test_a_line_starts_with_time_level_and_event(log_lines: LogStream) -> None:
    log.info("call", request_id="req-1", code="OK")
    (line,) = log_lines.lines
    assert tuple(line)[:3] == ("time", "level", "event")
    assert (line["level"], line["event"], line["request_id"], line["code"]) == (
        "info",
        "call",
        "req-1",
        "OK",
    )
    assert line["time"].endswith("Z")
    assert "dropped" not in line


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_member_that_is_not_allowed_is_dropped_and_named(log_lines: LogStream, name: str) -> None:
    log.info("call", request_id="req-1", **{name: "hunter2"})
    (line,) = log_lines.lines
    assert line["dropped"] == [name]
    assert line["request_id"] == "req-1"
    assert "hunter2" not in log_lines.getvalue()
    assert name not in ALLOWED


def test_bound_members_are_checked_too(log_lines: LogStream) -> None:
    log.bind(api="SyncLinkage", zeta="hunter2", alpha=Secret()).warning("attempt")
    (line,) = log_lines.lines
    assert line["api"] == "SyncLinkage"
    assert line["dropped"] == ["alpha", "zeta"]
    assert "hunter2" not in log_lines.getvalue()


def test_every_allowed_member_is_written(log_lines: LogStream) -> None:
    members = {name: name for name in ALLOWED - {"event", "level", "time", "dropped"}}
    log.error("all", **members)
    (line,) = log_lines.lines
    assert {name: line[name] for name in members} == members


def test_a_text_with_line_breaks_and_quotes_stays_in_its_line(log_lines: LogStream) -> None:
    text = 'a\nb\r\n"c"\\\x00\u2028\u2029\x85語𠮷\ud83d'
    log.info("odd", cause=text)
    (line,) = log_lines.lines
    assert line["cause"] == text


def test_a_value_of_no_json_type_is_written_as_text(log_lines: LogStream) -> None:
    log.info("odd", fault=ValueError("x"), listen=("a", 1), where={1})
    (line,) = log_lines.lines
    assert (line["fault"], line["listen"], line["where"]) == ("x", ["a", 1], "{1}")


@given(
    members=st.dictionaries(
        st.sampled_from(sorted(ALLOWED - {"event", "level", "time", "dropped"}))
        | st.sampled_from(FORBIDDEN),
        st.text() | st.integers() | st.none() | st.booleans() | st.lists(st.text(), max_size=3),
        max_size=6,
    )
)
@settings(suppress_health_check=FIXTURES_ARE_FINE)
def test_every_event_is_one_line_of_json(log_lines: LogStream, members: dict[str, Any]) -> None:
    log_lines.truncate(0)
    log_lines.seek(0)
    members.pop("exc_info", None)
    log.info("anything", **members)
    (line,) = log_lines.lines
    assert set(line) <= ALLOWED
    assert sorted(set(members) - ALLOWED) == line.get("dropped", [])


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("earlier", [None, "debug", "error"])
def test_events_below_the_level_are_not_written(
    level: str, written: list[str], earlier: str | None
) -> None:
    stream = LogStream()
    set_up_logs(earlier or level, stream)
    set_level(level)
    for record in (log.debug, log.info, log.warning, log.error):
        record("something")
    FrequentEvent("call").log()
    logging.getLogger("some.library").warning("something")
    levels = [line["level"] for line in stream.lines]
    assert levels == written + ["info"] * ("info" in written) + ["warning"] * ("warning" in written)


# -- frequent events


@given(
    members=st.dictionaries(
        st.sampled_from(sorted(ALLOWED - {"event", "level", "time", "dropped"})),
        st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(Api),
        max_size=6,
    )
)
@settings(suppress_health_check=FIXTURES_ARE_FINE)
def test_lines_of_a_frequent_event_are_those_of_any_event(
    log_lines: LogStream, members: dict[str, Any]
) -> None:
    log_lines.truncate(0)
    log_lines.seek(0)
    log.info("call", **members)
    FrequentEvent("call", *members).log(*members.values())
    usual, frequent = log_lines.getvalue().removesuffix("\n").split("\n")
    after_time = len('{"time": "')
    assert frequent[:after_time] == usual[:after_time]
    assert frequent.partition('Z"')[2] == usual.partition('Z"')[2]
    assert datetime.fromisoformat(log_lines.lines[1]["time"]).tzinfo is UTC


@pytest.mark.parametrize("name", FORBIDDEN)
def test_frequent_event_with_a_member_that_is_not_allowed_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        FrequentEvent("call", "request_id", name)


@pytest.mark.parametrize(("level", "count"), [("debug", 1), ("info", 1), ("warning", 0), ("error", 0)])
def test_frequent_event_has_level_info(level: str, count: int) -> None:
    set_up_logs(level, stream := LogStream())
    FrequentEvent("call", "code").log("OK")
    assert [(line["level"], line["code"]) for line in stream.lines] == [("info", "OK")] * count


# -- libraries


def library(stream: LogStream, level: str = "info") -> logging.Logger:
    """Configure our log, and return the logger of a library."""
    set_up_logs(level, stream)
    return logging.getLogger("some.library")


def test_a_librarys_record_is_written_without_its_text() -> None:
    stream = LogStream()
    logger = library(stream)
    try:
        raise ValueError("hunter2 in an exception")
    except ValueError:
        logger.exception("hunter2 %s", Secret(), extra={"user_id": "hunter2"})
    (line,) = stream.lines
    assert (line["level"], line["event"]) == ("error", "library log record")
    assert (line["logger"], line["error_class"]) == ("some.library", "ValueError")
    assert "test_logs" in line["where"]
    assert any("test_logs.py" in frame for frame in line["stack"])
    assert "hunter2" not in stream.getvalue()


def test_a_malformed_record_of_a_library_is_written() -> None:
    stream = LogStream()
    library(stream).warning("%d %s", "not a number")
    library(stream).warning("x", exc_info=True)
    assert [line["level"] for line in stream.lines] == ["warning", "warning"]


@pytest.mark.parametrize("number", [30, 31, 35, 39, 40, 45, 50, 51, 99, 1000])
def test_library_levels_map_to_warning_error_and_critical(number: int) -> None:
    stream = LogStream()
    library(stream).log(number, "hunter2")
    (line,) = stream.lines
    levels = {3: "warning", 4: "error"}
    assert line["level"] == levels.get(number // 10, "critical")


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_library_records_below_warning_are_not_written(level: str) -> None:
    stream = LogStream()
    logger = library(stream, level)
    logger.debug("x")
    logger.info("x")
    logger.warning("x")
    assert len(stream.lines) == 1


def test_a_flood_of_library_records_is_limited_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = LogStream()
    logger = library(stream)

    def flood(records: int) -> None:
        for _ in range(records):
            logger.warning("hunter2")

    flood(1_000)
    logger.warning("from another place")
    assert len(stream.lines) == LIBRARY_RECORDS_MAX + 1
    monkeypatch.setattr(logs, "LIBRARY_PERIOD_S", 0.0)
    flood(2)
    counts = [line.get("count") for line in stream.lines[LIBRARY_RECORDS_MAX + 1 :]]
    assert counts == [1_000 - LIBRARY_RECORDS_MAX, None]


# -- broken streams


class Broken(io.StringIO):
    """A stream that fails as pipes and terminals do."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, _: str) -> int:
        raise self._error


BROKEN: Final = {
    "pipe": Broken(BrokenPipeError()),
    "disk": Broken(OSError(28, "No space left on device")),
    "encoding": Broken(UnicodeEncodeError("ascii", "語", 0, 1, "ordinal not in range")),
    "closed": io.StringIO(),
}
BROKEN["closed"].close()


@pytest.mark.parametrize("stream", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_stream_never_breaks_a_call(stream: io.StringIO) -> None:
    set_up_logs("info", stream)
    log.bind(api="SyncLinkage").info("call", code="OK")
    FrequentEvent("call", "code").log("OK")
    logging.getLogger("some.library").error("x")


def test_lines_go_to_the_current_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info")
    log.info("call")
    assert json.loads(capsys.readouterr().out)["event"] == "call"


def test_a_replaced_stream_gets_no_lines() -> None:
    first, second = LogStream(), LogStream()
    for stream in (first, second):
        set_up_logs("info", stream)
    log.info("call")
    logging.getLogger("some.library").warning("x")
    assert (len(first.lines), len(second.lines)) == (0, 2)
    assert structlog.get_config()["cache_logger_on_first_use"] is False


# -- stacks


def test_a_stack_names_places_and_no_text() -> None:
    def inner() -> None:
        raise KeyError("hunter2")

    try:
        inner()
    except KeyError as error:
        stack = stack_of(error)
    assert [frame.split()[-1] for frame in stack] == ["test_a_stack_names_places_and_no_text", "inner"]
    assert all(frame.startswith("test_logs.py:") for frame in stack)
    assert stack_of(KeyError("never raised")) == []
