"""A wall clock for Python processes that a test starts; the test can set it ahead or back while they run.

A `sitecustomize` on PYTHONPATH replaces `time.time`, `time.time_ns` and `datetime.now` in each of these
processes and their workers: they add the number of seconds in a file. CLOCK_MONOTONIC and CLOCK_BOOTTIME do
not change, as when an operator or NTP sets a clock. C libraries that read the clock (OpenSSL, gRPC) get the
true time. libfaketime 0.9.10 is no alternative: when it leaves the monotonic clock unchanged, `time.sleep`
fails with EINVAL.

    clock = WallClock(tmp_path)
    async with running(settings, environ=clock.environ) as gateway:
        clock.set_ahead(3600)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SITE: Final = """
import datetime, sys, time
from pathlib import Path

_file, _true_s, _datetime = Path({file!r}), time.time, datetime.datetime

def _now_s():
    # grpc compares a deadline with this clock, having made it from the C library's: both must be true.
    if "time_remaining" in sys._getframe(1).f_code.co_names:
        return _true_s()
    return _true_s() + float(_file.read_text("ascii"))

class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(_now_s(), tz)

time.time, time.time_ns = _now_s, lambda: int(_now_s() * 1e9)
datetime.datetime = _Datetime
"""


class WallClock:
    """The wall clock of every Python process started with `environ`."""

    def __init__(self, directory: Path, *, ahead_s: float = 0.0) -> None:
        self._file = directory / "wall-clock"
        self._site = directory / "site"
        self._site.mkdir()
        (self._site / "sitecustomize.py").write_text(_SITE.format(file=str(self._file)), "utf-8")
        self.set_ahead(ahead_s)

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment variables of a process with this clock."""
        return {"PYTHONPATH": str(self._site)}

    def set_ahead(self, seconds: float) -> None:
        """Set the clock a number of seconds ahead of the true time; a negative number sets it back."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{seconds:.3f}", "ascii")
        written.replace(self._file)  # atomic, so that no process reads a part of the number
