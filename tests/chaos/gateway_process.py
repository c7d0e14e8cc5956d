"""Run the gateway's command line with a movable wall clock, a named process, and mutants.

    python -P gateway_process.py SHIM CLOCK_FILE MUTANTS [-P -m service] serve ...

The harness writes an executable SHIM that runs this file. The supervisor starts workers with it too,
because this file assigns it to `sys.executable`. CLOCK_FILE holds one double: how many seconds the wall clock
of this host is ahead of the true time. MUTANTS are names of `mutants.MUTANTS`, separated by commas. Nothing
here is read from the environment, and the service knows nothing of it.
"""

from __future__ import annotations

import datetime as dt
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

OFFSET: Final = struct.Struct("<d")
PROCESS_HEADER: Final = "X-Chaos-Process"
"""Names the sending process on each request to AlipayHK; the signature does not cover it."""
_NANOSECONDS: Final = 1_000_000_000


def move_clock(file: Path) -> None:
    """Let every wall clock of this process show the true time plus the offset in the file.

    The monotonic clocks stay as they are.
    """
    with file.open("rb") as stream:
        memory = mmap.mmap(stream.fileno(), OFFSET.size, prot=mmap.PROT_READ)
    true_time, true_time_ns, true_gettime = time.time, time.time_ns, time.clock_gettime
    true_gettime_ns = time.clock_gettime_ns

    def offset_s() -> float:
        return float(OFFSET.unpack_from(memory)[0])

    def gettime(clock: int) -> float:
        return true_gettime(clock) + (offset_s() if clock == time.CLOCK_REALTIME else 0.0)

    def gettime_ns(clock: int) -> int:
        moved_ns = round(offset_s() * _NANOSECONDS) if clock == time.CLOCK_REALTIME else 0
        return true_gettime_ns(clock) + moved_ns

    time.time = lambda: true_time() + offset_s()
    time.time_ns = lambda: true_time_ns() + round(offset_s() * _NANOSECONDS)
    time.clock_gettime, time.clock_gettime_ns = gettime, gettime_ns
    _move_datetime(time.time)


def _move_datetime(now_s: Callable[[], float]) -> None:
    true: Any = dt.datetime

    class Kind(type(true)):  # type: ignore[misc]
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, true)

    class Moved(true, metaclass=Kind):  # type: ignore[misc]
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(now_s(), tz)

    dt.datetime = Moved  # type: ignore[misc]


def name_process() -> None:
    """Send this process's id with every request to AlipayHK."""
    from aiohttp import ClientSession  # noqa: PLC0415  (after the clock was moved)

    session_type: Any = ClientSession
    begin = session_type.__init__

    def named(session: Any, *arguments: Any, **options: Any) -> None:
        headers = {**(options.pop("headers", None) or {}), PROCESS_HEADER: str(os.getpid())}
        begin(session, *arguments, headers=headers, **options)

    session_type.__init__ = named


def main() -> int:
    """Prepare this process, and run the command line."""
    shim, clock_file, mutants, *arguments = sys.argv[1:]
    while arguments and arguments[0] in {"-P", "-m", "service"}:
        del arguments[0]
    move_clock(Path(clock_file))
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    sys.executable = shim
    name_process()
    from service.cli import main as run  # noqa: PLC0415  (after the clock was moved)
    from tests.chaos.mutants import MUTANTS  # noqa: PLC0415

    for name in filter(None, mutants.split(",")):
        MUTANTS[name].make()
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
