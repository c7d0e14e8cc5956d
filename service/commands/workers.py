"""Several worker processes on one port: the kernel spreads connections over them (SO_REUSEPORT).

The supervisor only starts workers, stops them, and restarts those that exit. A worker stops when its
supervisor has exited. Each worker also serves the admin port; its metrics are those of all workers, which
share them in files.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from prometheus_client import multiprocess

from ..config.environment import environment_of_worker
from ..config.values import Address
from ..gateway import stop_signals
from ..server.ports import cause_of, try_to_bind
from ..server.server import CannotListen
from ..telemetry.logs import log
from .exit_codes import EX_CONFIG, EX_UNAVAILABLE

RESTART_DELAY_S: Final = 1.0
"""Minimum time between restarts, so that a worker that cannot start does not keep the machine busy."""
PERMANENT: Final = frozenset({EX_CONFIG, EX_UNAVAILABLE})
"""Exit statuses of a worker that cannot start; a restart would exit in the same way."""
HAS_SERVED_S: Final = 10.0
"""A worker that runs for longer has served, so the shared configuration is usable."""
PERMANENT_RETRY_S: Final = 30.0
"""Minimum time between the starts of a worker that exits with a PERMANENT status, while others serve."""
STOPPED: Final = frozenset({-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})
"""Exit statuses of a worker that gets a signal before it has installed its signal handlers."""


def must_be_free(addresses: Iterable[Address]) -> None:
    """Raise CannotListen if a port is in use: workers would share it with those of another gateway."""
    for address in addresses:
        try:
            try_to_bind(address.host, address.port)
        except (OSError, UnicodeError) as error:
            raise CannotListen(f"cannot listen on {address}: {cause_of(error)}") from None


def supervise(count: int, serve_arguments: Sequence[str]) -> int:
    """Run workers until a signal; return 0 if all of them then exit normally."""
    command = [sys.executable, "-P", "-m", "service", "serve", *serve_arguments, "--worker"]
    with tempfile.TemporaryDirectory(prefix="alipayhk-metrics-") as metrics_directory:
        return _Supervisor(command, Path(metrics_directory)).run(count)


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    started_s: float
    is_logged: bool = False
    """Whether its exit has been logged."""

    def exit_status(self) -> int:
        """Wait for its exit, and close its pipe."""
        with self.process:
            return self.process.wait()


class _Supervisor:
    def __init__(self, command: list[str], metrics_directory: Path) -> None:
        self._command = command
        self._metrics_directory = metrics_directory
        self._workers: list[_Worker] = []
        # Not an Event: a signal handler can interrupt the thread that holds its lock. This has no lock.
        self._stopping: SimpleQueue[int] = SimpleQueue()

    def run(self, count: int) -> int:
        for number in stop_signals():
            signal.signal(number, lambda received, _: self._stopping.put(received))
        self._workers = [self._start() for _ in range(count)]
        log.info("workers started", workers=count)
        while not self._is_stopping(RESTART_DELAY_S):
            self._replace_dead()
        for worker in self._workers:
            worker.process.terminate()
        statuses = [worker.exit_status() for worker in self._workers]
        return max(0 if status in STOPPED else abs(status) for status in statuses)

    def _is_stopping(self, timeout_s: float) -> bool:
        try:
            self._stopping.get(timeout=timeout_s)
        except Empty:
            return False
        return True

    def _start(self) -> _Worker:
        environment = environment_of_worker(self._metrics_directory)
        # The system closes the pipe when this process exits for any reason.
        process = subprocess.Popen(  # noqa: S603  (the arguments are our own)
            self._command, env=environment, stdin=subprocess.PIPE
        )
        return _Worker(process, time.monotonic())

    def _replace_dead(self) -> None:
        for place, worker in enumerate(self._workers):
            code = worker.process.poll()
            if code is None:
                continue
            self._log_exit(worker)
            if code in PERMANENT:
                if not self._any_serves():
                    self._stopping.put(code)
                    return
                if time.monotonic() - worker.started_s < PERMANENT_RETRY_S:
                    continue
            self._workers[place] = self._start()

    def _log_exit(self, worker: _Worker) -> None:
        if not worker.is_logged:
            worker.is_logged = True
            log.error("worker exited", code=worker.exit_status())
            multiprocess.mark_process_dead(worker.process.pid, str(self._metrics_directory))  # type: ignore[no-untyped-call]

    def _any_serves(self) -> bool:
        now_s = time.monotonic()
        return any(
            worker.process.poll() is None and now_s - worker.started_s > HAS_SERVED_S
            for worker in self._workers
        )
