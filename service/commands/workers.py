"""Several worker processes on one port: the kernel spreads connections over them (SO_REUSEPORT).

The parent only starts them, tells them to stop, and replaces one that died; a worker whose parent is gone
stops by itself. Each worker serves the admin port too; its metrics are those of all workers, kept in files
that they share.
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
"""So that a worker that dies at once does not keep the machine busy."""
HOPELESS: Final = frozenset({EX_CONFIG, EX_UNAVAILABLE})
"""How a worker ends that would end the same way again."""
SERVES_AFTER_S: Final = 10.0
"""A worker that has lived so long has served: what ends another one is not in what they share."""
HOPELESS_AGAIN_S: Final = 30.0
"""How long after its beginning a hopeless one is tried again, while others serve."""
STOPPED: Final = frozenset({-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})
"""How a worker ends that is told to stop before it has begun to listen to signals."""


def must_be_free(addresses: Iterable[Address]) -> None:
    """Raise CannotListen where somebody listens: it may be another gateway's workers, which would share."""
    for address in addresses:
        try:
            try_to_bind(address.host, address.port)
        except (OSError, UnicodeError) as error:
            raise CannotListen(f"cannot listen on {address}: {cause_of(error)}") from None


def supervise(count: int, serve_arguments: Sequence[str]) -> int:
    """Run workers until a signal; return 0 if each of them then ended well."""
    command = [sys.executable, "-P", "-m", "service", "serve", *serve_arguments, "--worker"]
    with tempfile.TemporaryDirectory(prefix="alipayhk-metrics-") as metrics_directory:
        return _Supervisor(command, Path(metrics_directory)).run(count)


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    began_s: float
    is_told_of: bool = False
    """Whether its end stands in the log."""

    def end(self) -> int:
        """Wait for its end, and close its pipe; return its exit status."""
        with self.process:
            return self.process.wait()


class _Supervisor:
    def __init__(self, command: list[str], metrics_directory: Path) -> None:
        self._command = command
        self._metrics_directory = metrics_directory
        self._workers: list[_Worker] = []
        # An Event's lock may be held by the very thread that a signal interrupts; this has none.
        self._stopping: SimpleQueue[int] = SimpleQueue()

    def run(self, count: int) -> int:
        for number in stop_signals():
            signal.signal(number, lambda received, _: self._stopping.put(received))
        self._workers = [self._start() for _ in range(count)]
        log.info("supervising", workers=count)
        while not self._is_stopping(RESTART_DELAY_S):
            self._replace_dead()
        for worker in self._workers:
            worker.process.terminate()
        ends = [worker.end() for worker in self._workers]
        return max(0 if end in STOPPED else abs(end) for end in ends)

    def _is_stopping(self, patience_s: float) -> bool:
        try:
            self._stopping.get(timeout=patience_s)
        except Empty:
            return False
        return True

    def _start(self) -> _Worker:
        environment = environment_of_worker(self._metrics_directory)
        # The pipe is closed when this process ends, however it ends.
        process = subprocess.Popen(  # noqa: S603  (our own words)
            self._command, env=environment, stdin=subprocess.PIPE
        )
        return _Worker(process, time.monotonic())

    def _replace_dead(self) -> None:
        for place, worker in enumerate(self._workers):
            code = worker.process.poll()
            if code is None:
                continue
            self._tell_of(worker)
            if code in HOPELESS:
                if not self._any_serves():
                    self._stopping.put(code)
                    return
                if time.monotonic() - worker.began_s < HOPELESS_AGAIN_S:
                    continue
            self._workers[place] = self._start()

    def _tell_of(self, worker: _Worker) -> None:
        if not worker.is_told_of:
            worker.is_told_of = True
            log.error("a worker died", code=worker.end())
            multiprocess.mark_process_dead(worker.process.pid, str(self._metrics_directory))  # type: ignore[no-untyped-call]

    def _any_serves(self) -> bool:
        now_s = time.monotonic()
        return any(
            worker.process.poll() is None and now_s - worker.began_s > SERVES_AFTER_S
            for worker in self._workers
        )
