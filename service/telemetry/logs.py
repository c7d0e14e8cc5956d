"""Log lines without personal data: only the members in ALLOWED are written, as `rendering` shows them.

To log a new member, add it to ALLOWED. The records of libraries are written without their text, because it
can quote a request; the position in the code and the class of the exception are written.
"""

from __future__ import annotations

import logging
import math
import re
import sys
import time
import traceback
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any, ClassVar, Final, Protocol

import structlog

from .rendering import Render, json_line, now

ALLOWED: Final = frozenset(
    {
        "address",
        "admin_listen",
        "api",
        "attempts",
        "bits",
        "caller",
        "capture",
        "caller_names",
        "callers",
        "cause",
        "clock_skew_s",
        "code",
        "commit",
        "config_file",
        "count",
        "dropped",
        "end",
        "error_class",
        "error_id",
        "event",
        "expires",
        "fault",
        "file",
        "group",
        "health_listen",
        "http_status",
        "key_id",
        "key_version",
        "ledger",
        "level",
        "listen",
        "log_level",
        "logger",
        "method",
        "outcome",
        "reason",
        "request_id",
        "result_code",
        "result_status",
        "retry",
        "seconds",
        "serial",
        "setting",
        "sha256",
        "signing_key_version",
        "span_id",
        "stack",
        "time",
        "tls",
        "trace_id",
        "tracer_id",
        "unverified_result_code",
        "version",
        "where",
        "workers",
    }
)

CODE: Final = re.compile(r"(?!.*\d{5})[A-Z0-9_]{0,64}")
"""The format of a result code. It matches no user id, telephone number or card number."""
LIBRARY_PERIOD_S: Final = 10.0
LIBRARY_RECORDS_MAX: Final = 3
"""Maximum number of records in each period from one position in a library's code."""

Log = structlog.typing.FilteringBoundLogger
log: Final[Log] = structlog.get_logger()


class Stream(Protocol):
    """A destination of log lines."""

    def write(self, text: str, /) -> object:
        """Write a line, or buffer it for a short time."""

    def flush(self) -> object:
        """Pass on what is buffered."""


class FrequentEvent:
    """An info event that every call logs, always with the same members: its lines are like those of `log`.

    `log` takes several times as long. It also flushes each line; these lines stay in the stream's buffer.
    """

    stream: ClassVar[Stream | None] = None
    """Where the lines are written as JSON; None if they are not, or if LOG_LEVEL is above info."""
    output: ClassVar[Stream | None] = None
    is_for_terminal: ClassVar[bool] = False
    """Whether `log` writes the lines, because they are not JSON."""

    def __init__(self, event: str, *names: str) -> None:
        """Prepare the lines of an event with these members; raise ValueError if one is not in ALLOWED."""
        if not_allowed := set(names) - ALLOWED:
            raise ValueError(not_allowed)
        members = "".join(f', "{name}": %s' for name in names)
        self._event, self._names = event, names
        self._line = f'{{"time": "%s", "level": "info", "event": "{event}"{members}}}\n'

    def log(self, *values: str | float) -> None:
        """Write a line with these values of the members, in their order; floats are finite."""
        if self.stream is None:
            if self.is_for_terminal:
                log.info(self._event, **dict(zip(self._names, values, strict=True)))
            return
        texts = [encode_basestring(each) if isinstance(each, str) else repr(each) for each in values]
        try:  # noqa: SIM105  (`suppress` would take longer than the rest)
            self.stream.write(self._line % (now(), *texts))
        except (OSError, ValueError):
            pass


def set_up_logs(level: str, stream: Stream | None = None, render: Render = json_line) -> None:
    """Write the log lines of this level and above, including those of libraries, to stdout."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, only_allowed, render],
        logger_factory=lambda *_: _Lines(stream or sys.stdout),
        cache_logger_on_first_use=False,
    )
    FrequentEvent.is_for_terminal = render is not json_line
    FrequentEvent.output = None if FrequentEvent.is_for_terminal else stream or sys.stdout
    set_level(level)
    logging.basicConfig(handlers=[_Libraries()], level=logging.WARNING, force=True)


def set_level(level: str) -> None:
    """Write lines from this level. To reconfigure `logging` can be a deadlock: grpc/grpc issue 43421."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
    FrequentEvent.stream = FrequentEvent.output if number <= logging.INFO else None


def only_allowed(_: object, __: str, members: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Drop members that are not in ALLOWED, and list their names in `dropped`: logging them is a bug."""
    if members.keys() <= ALLOWED:
        return members
    dropped = sorted(members.keys() - ALLOWED)
    kept = {name: value for name, value in members.items() if name in ALLOWED}
    return kept | {"dropped": dropped}


def stack_of(error: BaseException) -> list[str]:
    """Return the stack of an exception, without its text: file, line and function of each frame."""
    return [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]


def code_text(code: str) -> str:
    """Return a result code if it is safe to log: AlipayHK may echo anything, personal data included."""
    return code if CODE.fullmatch(code) else "other"


class _Lines:
    """Writes lines, and ignores a broken stream, so that logging never fails a call."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = msg


class _Libraries(logging.Handler):
    """Writes the records of libraries without their text, and limits their rate per position in the code.

    A peer on the network can make a library log with every packet. After such a flood, `count` in the next
    line is the number of records that were dropped.
    """

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[tuple[str, ...], _Place] = {}

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        more: dict[str, Any] = {"error_class": type(error).__name__} if error else {}
        where = f"{record.module}:{record.lineno} {record.funcName}"
        place = self._places.setdefault((record.name, where, *more.values()), _Place())
        if not place.may_write(time.monotonic()):
            return
        if error:
            more["stack"] = stack_of(error)
        if place.dropped:
            more["count"], place.dropped = place.dropped, 0
        log.log(
            min(record.levelno // 10 * 10, logging.CRITICAL),  # structlog has only these levels
            "library log record",
            logger=record.name,
            where=where,
            **more,
        )


@dataclass(slots=True)
class _Place:
    """The records of one position in a library's code in the current period."""

    began_s: float = -math.inf
    written: int = 0
    dropped: int = 0

    def may_write(self, now_s: float) -> bool:
        """Return whether one more record can be written in this period; count it in either case."""
        if now_s - self.began_s >= LIBRARY_PERIOD_S:
            self.began_s, self.written = now_s, 0
        if self.written >= LIBRARY_RECORDS_MAX:
            self.dropped += 1
            return False
        self.written += 1
        return True


def lines_dropped(count: int, render: Render = json_line) -> str:
    """Return the line that says how many lines were dropped, because the log was not read."""
    return render(None, "", {"level": "warning", "event": "log lines dropped", "count": count}) + "\n"
