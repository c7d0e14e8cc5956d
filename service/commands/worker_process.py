"""One worker process as its supervisor sees it: its heartbeats, and how it is stopped.

`service/control.py` describes the socket pair between them.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from ..control import send
from ..telemetry.logs import log

SILENCE_MAX_S: Final = 10.0
"""A worker without a heartbeat for this long is stuck or stopped: its callers get no answers."""
START_MAX_S: Final = 60.0
"""The same before the first heartbeat: a worker may wait for a ledger that is being opened."""
_READ_BYTES: Final = 4096


class WorkerProcess:
    """A worker that was started, and the time of its last heartbeat."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the worker."""
        self._pipe, workers_end = socket.socketpair()
        self._pipe.settimeout(0)
        with workers_end:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603  (the arguments are our own)
                command, env=environment, stdin=workers_end.fileno()
            )
        self.started_s = time.monotonic()
        self._heard_s = self.started_s
        self.has_beaten = False
        """Whether it has sent a heartbeat, and so accepts calls."""
        self._is_killed = False
        self.is_logged = False
        """Whether its exit has been logged."""

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        status = self._process.poll()
        if status is not None:
            self._pipe.close()
        return status

    def give(self, settings: int) -> None:
        """Pass it a file in memory with the settings to use from now on."""
        with suppress(OSError):  # it has exited
            send(self._pipe, settings)

    def terminate(self) -> None:
        """Ask it to finish the calls in progress and to exit."""
        self._process.terminate()

    def kill_if_silent(self, *, passed_s: float) -> None:
        """Kill it if it has sent no heartbeat for too long; `passed_s` passed since the last look.

        If this process was stopped itself, the workers probably were too, and that time does not count.
        """
        now_s = time.monotonic()
        with suppress(OSError):
            while self._pipe.recv(_READ_BYTES):
                self._heard_s, self.has_beaten = now_s, True
        if passed_s > SILENCE_MAX_S / 2:
            self._heard_s = now_s
        silence_s = now_s - self._heard_s
        if silence_s > (SILENCE_MAX_S if self.has_beaten else START_MAX_S):
            self.kill(silence_s)

    def kill(self, seconds: float) -> None:
        """Kill it, also if it is stopped; log how long it did not respond."""
        if not self._is_killed:
            self._is_killed = True
            log.error("unresponsive worker killed", seconds=round(seconds))
            self._process.kill()
