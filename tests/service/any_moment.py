"""Stop a supervisor at one moment after another, in a separate process, because a bug can make it hang."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

from service.commands import workers
from service.telemetry.logs import set_up_logs
from tests.service.supervisor import supervisor

STEPS = 100


class Log(io.StringIO):
    """A log that sends SIGTERM a given number of Python's steps after the supervisor's first line."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def write(self, line: str) -> int:
        """Start to count."""
        sys.setprofile(self._step)
        return len(line)

    def _step(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    setattr(workers, "RESTART_DELAY_S", 0.01)  # noqa: B010  (mypy knows it as a constant)
    for steps in range(1, STEPS):
        set_up_logs("info", Log(steps))
        supervisor(["sleep", "60"], Path(sys.argv[1])).run(1)
    sys.stdout.write("stopped each time\n")
