"""Several worker processes on one port: the kernel spreads connections over them (SO_REUSEPORT).

The supervisor only starts workers, stops them, kills those that do not respond, and restarts those that
exit. It reads the settings and the files that they name, and passes what is valid to every worker, also to
one that starts later. A worker stops when its supervisor has exited. Each worker also serves the admin
port; its metrics are those of all workers, which share them in files.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from ..config.environment import environment_of_worker
from ..config.reload import Reload, Reloader
from ..config.values import Address
from ..control import hangup_stops, packed, stop_signals
from ..server.ports import cause_of, try_to_bind
from ..server.server import CannotListen
from ..server.systemd import READY, STOPPING, notify
from ..telemetry.logs import log, set_level
from ..telemetry.metrics_file import must_be_private, retire, temporary_directory
from .exit_codes import EX_CONFIG, EX_UNAVAILABLE
from .worker_process import WorkerProcess

RESTART_DELAY_S: Final = 1.0
"""Minimum time between restarts, so that a worker that cannot start does not keep the machine busy."""
PERMANENT: Final = frozenset({EX_CONFIG, EX_UNAVAILABLE})
"""Exit statuses of a worker that cannot start; a restart would exit in the same way."""
HAS_SERVED_S: Final = 10.0
"""A worker that runs for longer has served, so the shared configuration is usable."""
PERMANENT_RETRY_S: Final = 30.0
"""Minimum time between the starts of a worker that exits with a PERMANENT status, while others serve."""
STOP_MARGIN_S: Final = 15.0
"""How long a worker may take to stop, beyond the time that its settings give to calls in progress."""
KILL_WAIT_S: Final = 5.0
"""How long to wait for a killed worker; one that waits for a disk cannot exit."""
_POLL_S: Final = 0.05
STOPPED: Final = frozenset({-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})
"""Exit statuses of a worker that gets a signal before it has installed its signal handlers."""


def must_be_free(addresses: Iterable[Address]) -> None:
    """Raise CannotListen if a port is in use: workers would share it with those of another gateway."""
    for address in addresses:
        try:
            try_to_bind(address.host, address.port)
        except (OSError, UnicodeError) as error:
            raise CannotListen(f"cannot listen on {address}: {cause_of(error)}") from None


def supervise(reloader: Reloader, serve_arguments: Sequence[str]) -> int:
    """Run workers until a signal; return 0 if all of them then exit normally.

    A worker may take the time that its settings give to calls in progress, and STOP_MARGIN_S for the rest.
    """
    settings = reloader.current.settings
    stop_s = settings.drain_delay_s + max(settings.stop_grace_s, settings.upstream_timeout_s)
    command = [sys.executable, "-P", "-m", "service", "serve", *serve_arguments, "--worker"]
    metrics_directory = temporary_directory() / f"alipayhk-metrics-{os.urandom(8).hex()}"
    try:
        return _Supervisor(reloader, command, metrics_directory, stop_s + STOP_MARGIN_S).run(
            settings.workers
        )
    finally:
        shutil.rmtree(metrics_directory, ignore_errors=True)


class _Supervisor:
    def __init__(
        self,
        reloader: Reloader,
        command: list[str],
        metrics_directory: Path,
        stop_max_s: float = STOP_MARGIN_S,
    ) -> None:
        self._reloader = reloader
        self._settings = packed(reloader.current)
        """The file in memory with what every worker uses."""
        self._look_s = time.monotonic()
        # Files are read in a thread, because their disk may hang; this thread passes on what it found.
        self._looking = threading.Thread()
        self._read: SimpleQueue[Reload] = SimpleQueue()
        self._command = command
        self._metrics_directory = metrics_directory
        self._stop_max_s = stop_max_s
        self._workers: list[WorkerProcess] = []
        self._exited: list[int] = []
        """The process ids of workers whose metrics are not merged yet."""
        self._looked_s = 0.0
        self._is_directory_reported = False
        self._is_ready = False
        # Not an Event: a signal handler can interrupt the thread that holds its lock. This has no lock.
        self._stopping: SimpleQueue[int] = SimpleQueue()
        self._is_reload_asked = False

    def run(self, count: int) -> int:
        for number in stop_signals():
            signal.signal(number, lambda received, _: self._stopping.put(received))
        if not hangup_stops():
            signal.signal(signal.SIGHUP, self._ask_to_reload)
        self._make_directory()
        self._workers = [self._start() for _ in range(count)]
        self._looked_s = time.monotonic()
        log.info("workers started", workers=count)
        while not self._is_stopping(RESTART_DELAY_S):
            self._make_directory()
            self._kill_silent()
            self._reload()
            self._replace_dead()
            self._retire_exited()
            self._report_ready()
        notify(STOPPING)
        return self._stop()

    def _report_ready(self) -> None:
        """Report once to the service manager that a worker accepts calls."""
        if not self._is_ready and any(worker.has_beaten for worker in self._workers):
            self._is_ready = True
            notify(READY)

    def _ask_to_reload(self, *_: object) -> None:
        self._is_reload_asked = True

    def _reload(self) -> None:
        """Read the settings again if it is time or a signal has asked, and pass on what has changed."""
        while not self._read.empty():
            self._pass_on(self._read.get())
        every_s, now_s = self._reloader.current.settings.reload_every_s, time.monotonic()
        is_due = self._is_reload_asked or 0 < every_s <= now_s - self._look_s
        if not is_due or self._looking.is_alive():
            return
        is_asked, self._is_reload_asked, self._look_s = self._is_reload_asked, False, now_s
        look = partial(self._reloader.look, self._read.put, asked=is_asked)
        self._looking = threading.Thread(target=look, name="reload", daemon=True)
        self._looking.start()

    def _pass_on(self, reload: Reload) -> None:
        set_level(reload.settings.log_level)
        before, self._settings = self._settings, packed(reload)
        os.close(before)
        for worker in self._workers:
            worker.give(self._settings)

    def _stop(self) -> int:
        """Stop all workers, kill those that do not stop, and return the exit status of this process."""
        for worker in self._workers:
            worker.terminate()
        began_s = time.monotonic()
        while None in (statuses := [worker.poll() for worker in self._workers]):
            passed_s = time.monotonic() - began_s
            self._kill_silent()
            if passed_s > self._stop_max_s:
                for worker in self._workers:
                    worker.kill(passed_s)
            if passed_s > self._stop_max_s + KILL_WAIT_S:
                break
            time.sleep(_POLL_S)
        return max(_own_status(status) for status in statuses)

    def _kill_silent(self) -> None:
        now_s = time.monotonic()
        for worker in self._workers:
            if worker.poll() is None:
                worker.kill_if_silent(passed_s=now_s - self._looked_s)
        self._looked_s = now_s

    def _is_stopping(self, timeout_s: float) -> bool:
        try:
            self._stopping.get(timeout=timeout_s)
        except Empty:
            return False
        return True

    def _make_directory(self) -> None:
        """Create the directory of the metrics, also again: a system removes old temporary files."""
        try:
            with suppress(FileExistsError):
                self._metrics_directory.mkdir(mode=0o700)
            must_be_private(self._metrics_directory)
        except OSError as error:
            if not self._is_directory_reported:
                log.warning(
                    "metrics directory unusable", where=str(self._metrics_directory), cause=error.strerror
                )
            self._is_directory_reported = True
        else:
            self._is_directory_reported = False

    def _start(self) -> WorkerProcess:
        worker = WorkerProcess(self._command, environment_of_worker(self._metrics_directory))
        worker.give(self._settings)
        return worker

    def _replace_dead(self) -> None:
        for place, worker in enumerate(self._workers):
            code = worker.poll()
            if code is None:
                continue
            self._log_exit(worker, code)
            if code in PERMANENT:
                if not self._any_serves():
                    self._stopping.put(code)
                    return
                if time.monotonic() - worker.started_s < PERMANENT_RETRY_S:
                    continue
            self._workers[place] = self._start()

    def _log_exit(self, worker: WorkerProcess, code: int) -> None:
        if not worker.is_logged:
            worker.is_logged = True
            log.error("worker exited", code=code)
            self._exited.append(worker.pid)

    def _retire_exited(self) -> None:
        """Merge the metrics of the workers that have exited, or try again in the next round."""
        while self._exited:
            try:
                retire(self._metrics_directory, self._exited[0])
            except BlockingIOError:
                return  # a worker reads them
            except OSError:
                pass  # the files were removed, or stay because the disk is full
            del self._exited[0]

    def _any_serves(self) -> bool:
        now_s = time.monotonic()
        return any(
            worker.poll() is None and now_s - worker.started_s > HAS_SERVED_S for worker in self._workers
        )


def _own_status(status: int | None) -> int:
    """Return this process's exit status after a worker's; None is a worker that cannot be killed."""
    if status is None:
        return signal.SIGKILL
    return 0 if status in STOPPED else abs(status)
