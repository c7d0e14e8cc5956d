"""The supervisor of workers stops at a signal at any moment, and its exit status is that of its workers."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from service.commands import worker_process, workers
from service.commands.exit_codes import EX_SOFTWARE
from service.commands.workers import must_be_free
from service.config.values import Address
from service.server.server import CannotListen
from service.telemetry.logs import set_up_logs
from tests.peers.processes import run
from tests.service.supervisor import HangingReloads, supervisor


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Restore the signal handlers after the test."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


class StoppingLog(io.StringIO):
    """A log that sends a signal at the first line, which the supervisor writes when it starts to wait."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self._number = number

    def write(self, line: str) -> int:
        """Send the signal."""
        os.kill(os.getpid(), self._number)
        return len(line)


def test_a_signal_at_any_moment_stops_the_supervisor(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "tests.service.any_moment", tmp_path, timeout_s=180)
    assert (done.status, done.output) == (0, "stopped each time\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_without_signal_handlers_is_stopped_with_status_0(
    number: signal.Signals, tmp_path: Path
) -> None:
    set_up_logs("info", StoppingLog(number))
    assert supervisor(["sleep", "60"], tmp_path).run(2) == 0


@contextmanager
def sigterm_after(file: Path, delay_s: float = 0.0) -> Iterator[None]:
    """Send SIGTERM to this process some seconds after a file exists."""

    def stop() -> None:
        while not file.exists():
            time.sleep(0.01)
        time.sleep(delay_s)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = Thread(target=stop)
    stopping.start()
    yield
    stopping.join()


@pytest.mark.parametrize("worker", ["exit 3", "kill -KILL $$", "kill -INT $$"])
def test_the_status_of_a_stopped_worker_is_the_supervisors(worker: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    words = f"trap '{worker}' TERM; touch {ready}; while :; do sleep 0.02; done"
    with sigterm_after(ready):
        status = supervisor(["sh", "-c", words], tmp_path).run(1)
    assert status == {"exit 3": 3, "kill -KILL $$": signal.SIGKILL, "kill -INT $$": 0}[worker]


def test_a_worker_with_a_permanent_error_stops_all_workers(tmp_path: Path) -> None:
    assert supervisor(["sh", "-c", "exit 78"], tmp_path).run(2) == 78


def test_a_worker_with_a_stopped_listener_is_replaced(tmp_path: Path) -> None:
    mark = tmp_path / "stopped"
    words = f"mkdir {mark} 2>/dev/null && exit {EX_SOFTWARE}; touch {tmp_path}/replaced; exec sleep 60"
    with sigterm_after(tmp_path / "replaced"):
        assert supervisor(["sh", "-c", words], tmp_path).run(1) == 0


def test_a_disk_that_hangs_stops_neither_supervisor_nor_workers(tmp_path: Path) -> None:
    reloader, mark = HangingReloads(), tmp_path / "stopped"
    words = f"mkdir {mark} 2>/dev/null && exit {EX_SOFTWARE}; touch {tmp_path}/replaced; exec sleep 60"
    with sigterm_after(tmp_path / "replaced", delay_s=1):
        assert supervisor(["sh", "-c", words], tmp_path, reloader=reloader).run(1) == 0
    assert reloader.looks == 1


def test_a_permanent_error_does_not_stop_a_serving_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrongly edited file prevents a restart; the other workers have read the correct file."""
    monkeypatch.setattr(workers, "HAS_SERVED_S", 0.5)
    mark = tmp_path / "first"
    # The first worker creates the mark and serves. The other one and each replacement fail.
    words = f"mkdir {mark} 2>/dev/null && exec sleep 60; sleep 0.7; echo x >> {tmp_path}/failed; exit 78"
    with sigterm_after(tmp_path / "failed", delay_s=2):  # long enough for a wrong second attempt
        assert supervisor(["sh", "-c", words], tmp_path).run(2) == 78
    assert (tmp_path / "failed").read_text() == "x\n", "the next attempt comes after a delay"


def test_a_worker_without_heartbeats_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "SILENCE_MAX_S", 4.0)
    mark = tmp_path / "silent"
    beating = f"touch {tmp_path}/replaced; while :; do printf . >&0; sleep 0.2; done"
    words = f"mkdir {mark} 2>/dev/null || {{ {beating}; }}; printf . >&0; exec sleep 60"
    set_up_logs("info", lines := io.StringIO())
    with sigterm_after(tmp_path / "replaced", delay_s=5):  # long enough to kill the new worker, too
        assert supervisor(["sh", "-c", words], tmp_path).run(1) == 0
    assert lines.getvalue().count("unresponsive worker killed") == 1


def test_a_worker_that_never_starts_to_serve_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "START_MAX_S", 1.0)
    with sigterm_after(tmp_path / "replaced"):
        words = f"mkdir {tmp_path}/first 2>/dev/null || touch {tmp_path}/replaced; exec sleep 60"
        assert supervisor(["sh", "-c", words], tmp_path).run(1) == 0


@pytest.mark.parametrize("is_there", [True, False])
def test_the_directory_of_the_metrics_is_created_again(tmp_path: Path, is_there: bool) -> None:
    directory = tmp_path / "metrics" if is_there else tmp_path / "parent" / "metrics"
    words = (
        f'rm -r "$PROMETHEUS_MULTIPROC_DIR"; mkdir -p {directory.parent}; '
        f'while [ ! -d "$PROMETHEUS_MULTIPROC_DIR" ]; do sleep 0.05; done; '
        f"touch {tmp_path}/again; exec sleep 60"
    )
    with sigterm_after(tmp_path / "again"):
        assert supervisor(["sh", "-c", words], directory).run(1) == 0
    assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "words",
    [
        "printf . >&0; touch {ready}; kill -STOP $$",
        "trap '' TERM; touch {ready}; while :; do sleep 1; done",
    ],
    ids=["stopped", "ignores SIGTERM"],
)
def test_a_worker_that_does_not_stop_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr(worker_process, "SILENCE_MAX_S", 1.5)
    ready = tmp_path / "ready"
    with sigterm_after(ready, delay_s=0.1):
        status = supervisor(["sh", "-c", words.format(ready=ready)], tmp_path, stop_max_s=2.0).run(1)
    assert status == signal.SIGKILL


def test_a_port_of_another_program_is_not_shared() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = Address("127.0.0.1", other.getsockname()[1])
        with pytest.raises(
            CannotListen, match=f"cannot listen on {address}: another program uses {address}"
        ):
            must_be_free([address])
    must_be_free([address, Address("localhost", address.port)])
