"""The supervisor of workers: it stops whenever it is told to, and ends as its workers do."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from service.commands import workers
from service.commands.exit_codes import EX_SOFTWARE
from service.commands.workers import _Supervisor, must_be_free
from service.config.values import Address
from service.server.server import CannotListen
from service.telemetry.logs import set_up_logs
from tests.peers.processes import run


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Leave signals as they were found."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Telling(io.StringIO):
    """A log whose first line, with which the supervisor begins to wait, is answered by a signal."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self._number = number

    def write(self, line: str) -> int:
        """Tell the supervisor to stop."""
        os.kill(os.getpid(), self._number)
        return len(line)


def test_a_signal_may_come_at_any_moment(tmp_path: Path) -> None:
    ended = run(sys.executable, "-m", "tests.service.any_moment", tmp_path, patience_s=30)
    assert (ended.status, ended.said) == (0, "stopped each time\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_does_not_listen_to_signals_yet_is_stopped_well(
    number: signal.Signals, tmp_path: Path
) -> None:
    set_up_logs("info", Telling(number))
    assert _Supervisor(["sleep", "60"], tmp_path).run(2) == 0


@pytest.mark.parametrize("worker", ["exit 3", "kill -KILL $$", "kill -INT $$"])
def test_a_worker_that_stops_in_its_own_way_is_told_of(worker: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    words = f"trap '{worker}' TERM; touch {ready}; while :; do sleep 0.02; done"

    def stop() -> None:
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = Thread(target=stop)
    stopping.start()
    ended = _Supervisor(["sh", "-c", words], tmp_path).run(1)
    stopping.join()
    assert ended == {"exit 3": 3, "kill -KILL $$": signal.SIGKILL, "kill -INT $$": 0}[worker]


def test_a_worker_that_would_end_the_same_way_again_ends_them_all(tmp_path: Path) -> None:
    assert _Supervisor(["sh", "-c", "exit 78"], tmp_path).run(2) == 78


def test_worker_whose_listener_stopped_is_replaced(tmp_path: Path) -> None:
    mark = tmp_path / "stopped"
    words = f"mkdir {mark} 2>/dev/null && exit {EX_SOFTWARE}; touch {tmp_path}/replaced; exec sleep 60"

    def stop() -> None:
        while not (tmp_path / "replaced").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = Thread(target=stop)
    stopping.start()
    assert _Supervisor(["sh", "-c", words], tmp_path).run(1) == 0
    stopping.join()


def test_a_hopeless_worker_ends_no_other_one_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was edited wrongly keeps it from starting again; the others have read the right one."""
    monkeypatch.setattr(workers, "SERVES_AFTER_S", 0.5)
    mark = tmp_path / "first"
    # The first to make the mark serves; the other one fails, and so does each that is to replace it.
    words = f"mkdir {mark} 2>/dev/null && exec sleep 60; sleep 0.7; echo x >> {tmp_path}/failed; exit 78"

    def stop() -> None:
        while not (tmp_path / "failed").exists():
            time.sleep(0.05)
        time.sleep(2)  # in which it would be tried again
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = Thread(target=stop)
    stopping.start()
    assert _Supervisor(["sh", "-c", words], tmp_path).run(2) == 78
    stopping.join()
    assert (tmp_path / "failed").read_text() == "x\n", "it is tried again after a while, not at once"


def test_a_port_of_others_is_not_shared() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = Address("127.0.0.1", other.getsockname()[1])
        with pytest.raises(CannotListen, match=f"cannot listen on {address}: Address already in use"):
            must_be_free([address])
    must_be_free([address, Address("localhost", address.port)])
