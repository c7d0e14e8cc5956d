"""Several worker processes on one port: the kernel spreads connections over them (SO_REUSEPORT).

The parent only starts them, passes SIGTERM and SIGINT on, and replaces one that died. Each worker serves
the admin port too; its metrics are those of all workers, kept in files that they share.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from prometheus_client import multiprocess

from .exits import EX_CONFIG, EX_UNAVAILABLE
from .logs import log
from .settings import environment_of_worker

RESTART_DELAY_S: Final = 1.0
"""So that a worker that dies at once does not keep the machine busy."""
HOPELESS: Final = frozenset({EX_CONFIG, EX_UNAVAILABLE})
"""How a worker ends that would end the same way again."""
STOPPED: Final = frozenset({-signal.SIGTERM, -signal.SIGINT})
"""How a worker ends that is told to stop before it has begun to listen to signals."""


def supervise(count: int, serve_arguments: Sequence[str]) -> int:
    """Run workers until a signal; return 0 if each of them then ended well."""
    command = [sys.executable, "-P", "-m", "service", "serve", *serve_arguments, "--worker"]
    with tempfile.TemporaryDirectory(prefix="alipayhk-metrics-") as metrics_directory:
        return _Supervisor(command, Path(metrics_directory)).run(count)


class _Supervisor:
    def __init__(self, command: list[str], metrics_directory: Path) -> None:
        self._command = command
        self._metrics_directory = metrics_directory
        self._workers: list[subprocess.Popen[bytes]] = []
        # An Event's lock may be held by the very thread that a signal interrupts; this has none.
        self._stopping: SimpleQueue[int] = SimpleQueue()

    def run(self, count: int) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _: self._stopping.put(received))
        self._workers = [self._start() for _ in range(count)]
        log.info("supervising", workers=count)
        while not self._is_stopping(RESTART_DELAY_S):
            self._replace_dead()
        for worker in self._workers:
            worker.terminate()
        ends = [worker.wait() for worker in self._workers]
        return max(0 if end in STOPPED else abs(end) for end in ends)

    def _is_stopping(self, patience_s: float) -> bool:
        try:
            self._stopping.get(timeout=patience_s)
        except Empty:
            return False
        return True

    def _start(self) -> subprocess.Popen[bytes]:
        environment = environment_of_worker(self._metrics_directory)
        return subprocess.Popen(self._command, env=environment)  # noqa: S603  (our own words)

    def _replace_dead(self) -> None:
        for place, worker in enumerate(self._workers):
            if worker.poll() is None:
                continue
            log.error("a worker died", code=worker.returncode)
            if worker.returncode in HOPELESS:
                self._stopping.put(worker.returncode)
                return
            multiprocess.mark_process_dead(worker.pid, str(self._metrics_directory))  # type: ignore[no-untyped-call]
            self._workers[place] = self._start()
