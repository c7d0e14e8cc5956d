"""WallClock changes the wall clock of a process, and no other clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.clock import WallClock

PRINT_CLOCKS: Final = """
import sys, time
from datetime import UTC, datetime
for _ in sys.stdin:
    time.sleep(0.001)
    print(time.time(), time.time_ns() / 1e9, datetime.now(UTC).timestamp(), time.monotonic(),
          time.clock_gettime(time.CLOCK_BOOTTIME), isinstance(datetime.now(UTC), datetime), flush=True)
"""


def test_only_the_wall_clock_of_a_running_process_changes(tmp_path: Path) -> None:
    clock = WallClock(tmp_path, ahead_s=3600)
    environ = {**os.environ, **clock.environ}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PRINT_CLOCKS], env=environ, text=True, **pipes) as process:  # type: ignore[call-overload]
        for ahead_s in (3600.0, 0.0, -3600.0, 31 * 86_400.0):
            clock.set_ahead(ahead_s)
            process.stdin.write("\n")
            process.stdin.flush()
            *wall_s, monotonic_s, boottime_s, is_datetime = process.stdout.readline().split()
            assert all(abs(float(printed_s) - time.time() - ahead_s) < 60 for printed_s in wall_s)
            assert abs(float(monotonic_s) - time.monotonic()) < 60
            assert abs(float(boottime_s) - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
            assert is_datetime == "True"
        process.stdin.close()
