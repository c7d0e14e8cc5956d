"""Supervisors that are told to stop at one moment after another: a process of its own, which may hang."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

from service.commands import workers
from service.telemetry.logs import set_up_logs

STEPS = 100


class Log(io.StringIO):
    """Where the supervisor's first line is followed by SIGTERM, so many steps of Python later."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def write(self, line: str) -> int:
        """Begin to count."""
        sys.setprofile(self._step)
        return len(line)

    def _step(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    setattr(workers, "RESTART_DELAY_S", 0.01)  # noqa: B010  (which is constant to all others)
    for steps in range(1, STEPS):
        set_up_logs("info", Log(steps))
        workers._Supervisor(["sleep", "60"], Path(sys.argv[1])).run(1)
    sys.stdout.write("stopped each time\n")
