"""The log as JSON and as text for a terminal, and when it is which."""

from __future__ import annotations

import json
import re

import pytest

from service.telemetry.logs import FrequentEvent, lines_dropped, log, set_up_logs
from service.telemetry.rendering import renderer_of
from tests.service.fakes import LogStream

ESCAPE = "\x1b"
CALL = FrequentEvent("call", "code", "seconds")


def written(log_format: str, *, is_terminal: bool, no_color: str = "") -> str:
    """Return the line of a call."""
    stream = LogStream()
    set_up_logs("info", stream, renderer_of(log_format, is_terminal=is_terminal, no_color=no_color))
    CALL.log("OK", 0.25)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("log_format", "is_terminal", "no_color", "expected"),
    [
        ("auto", False, "", "json"),
        ("json", False, "", "json"),
        ("json", True, "", "json"),
        ("auto", True, "", "colours"),
        ("console", True, "", "colours"),
        ("auto", True, "1", "text"),
        ("console", True, "0", "text"),
        ("console", False, "", "text"),
    ],
)
def test_format_and_colours_follow_from_the_setting_the_terminal_and_no_color(
    log_format: str, is_terminal: bool, no_color: str, expected: str
) -> None:
    line = written(log_format, is_terminal=is_terminal, no_color=no_color)
    kinds = {"json": line.startswith("{"), "colours": ESCAPE in line}
    assert [kind for kind, is_it in kinds.items() if is_it] == [expected] * (expected != "text")


def test_line_on_a_terminal_has_time_level_event_and_members() -> None:
    line = written("console", is_terminal=False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[info +\] call +code=OK seconds=0\.25\n", line)


@pytest.mark.parametrize("event", ["frequent", "usual"])
def test_terminal_gets_the_events_of_its_level_only(event: str) -> None:
    set_up_logs("warning", stream := LogStream(), renderer_of("console", is_terminal=True, no_color=""))
    CALL.log("OK", 0.25) if event == "frequent" else log.info("call")
    assert stream.getvalue() == ""


def test_control_characters_of_a_peer_do_not_reach_the_terminal() -> None:
    set_up_logs("info", stream := LogStream(), renderer_of("console", is_terminal=False, no_color=""))
    log.info("call", tracer_id="a\x1b[2Jb\r\nc\u202e", stack=["x.py:1 f\x1b"], request_id="語")
    line, *stack = stream.getvalue().splitlines()
    assert (line + "".join(stack)).isprintable()
    assert "\\x1b[2J" in line
    assert "語" in line
    assert stack == ["    x.py:1 f\\x1b"]


def test_member_that_is_not_allowed_is_dropped_on_a_terminal_too() -> None:
    set_up_logs("info", stream := LogStream(), renderer_of("console", is_terminal=False, no_color=""))
    log.info("call", user_id="hunter2")
    assert "hunter2" not in stream.getvalue()
    assert "dropped=['user_id']" in stream.getvalue()


def test_number_of_dropped_lines_has_the_format_of_the_log() -> None:
    assert json.loads(lines_dropped(3))["count"] == 3
    text = lines_dropped(3, renderer_of("console", is_terminal=False, no_color=""))
    assert re.fullmatch(r"\S+Z \[warning +\] log lines dropped +count=3\n", text)
