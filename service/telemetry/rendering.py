"""How a log line looks: JSON, or text for a person at a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog

Members = MutableMapping[str, Any]
Render = Callable[[object, str, Members], str]
"""Returns the line, without its end, of a record; the first two arguments are those of structlog."""

_JSON: Final = json.JSONEncoder(ensure_ascii=False, default=str)


def renderer_of(log_format: str, *, is_terminal: bool, no_color: str) -> Render:
    """Return what renders the lines with this LOG_FORMAT; `no_color` is the variable NO_COLOR.

    Any text in NO_COLOR turns the colours off: https://no-color.org.
    """
    if log_format == "json" or (log_format == "auto" and not is_terminal):
        return json_line
    return _console(colours=is_terminal and not no_color)


def json_line(_: object, __: str, members: Members) -> str:
    """Return a record as JSON: the time, the level, the event, then the other members."""
    first = {"time": now(), "level": members.pop("level"), "event": members.pop("event")}
    return _JSON.encode({**first, **members})


def _console(*, colours: bool) -> Render:
    """Return what renders records for a terminal. A peer's control characters do not reach it."""
    renderer = structlog.dev.ConsoleRenderer(colors=colours, timestamp_key="time")

    def render(logger: object, name: str, members: Members) -> str:
        shown = {member: _printable(value) for member, value in members.items()}
        if stack := members.get("stack"):
            shown["stack"] = "\n".join(f"    {_printable(frame)}" for frame in stack)
        return str(renderer(logger, name, {"time": now(), **shown}))

    return render


def _printable(value: object) -> object:
    return repr(value)[1:-1] if isinstance(value, str) and not value.isprintable() else value


def now() -> str:
    """Return the time in UTC, as the member `time` has it."""
    return datetime.now(UTC).isoformat()[: -len("+00:00")] + "Z"
