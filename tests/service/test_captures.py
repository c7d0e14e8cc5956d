"""Captures: which exchanges are captured, and what a full queue and `capture next` do."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest

from clients.alipayhk.api import Api
from clients.alipayhk.captured import Capture
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.errors import (
    CallError,
    Malformed,
    NotEncrypted,
    OutsideWindow,
    ResultError,
    SignatureInvalid,
    Unsigned,
)
from clients.alipayhk.wire.messages import Exchange, RawResponse, SealedRequest
from clients.alipayhk.wire.result import Result
from service.config.settings import read_settings
from service.jobs.captures import NEXT, TICKET, WAITING_MAX, Captures
from service.jobs.gauges import running
from service.upstream import endpoints_of
from tests.service.fakes import LogStream
from tests.until import until

EXCHANGE = Exchange(SealedRequest("/p", (), b"{}"), RawResponse(200, (), b"{}"))
BROKEN = Malformed("not JSON")
WAIT_MAX_S = 10.0


@pytest.fixture
def endpoint(environ: dict[str, str]) -> Endpoint:
    return endpoints_of(read_settings(environ, None))[Api.SYNC_LINKAGE]


class Disk:
    """Seals captures, and is slow until `fast` is set."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.fast = Event()

    def seal(self, capture: Capture) -> bytes:
        assert capture.facts["api"] == "SyncLinkage"
        assert self.fast.wait(WAIT_MAX_S)
        return b"sealed"

    def names(self) -> list[str]:
        return [file.name for file in self.directory.iterdir() if file not in self.tickets()]

    def tickets(self) -> list[Path]:
        return list(self.directory.glob(f"{TICKET}*"))


async def test_capture_that_is_dropped_does_not_count_as_one_of_the_next(
    endpoint: Endpoint, tmp_path: Path, log_lines: LogStream
) -> None:
    disk = Disk(tmp_path)
    captures = Captures(tmp_path, disk.seal, 100)
    (tmp_path / NEXT).write_text("2\n", "ascii")

    def drops() -> bool:
        assert captures.watch(endpoint, EXCHANGE, None) == ""
        return bool(log_lines.of("capture dropped"))

    async with running(captures.look()):
        assert all(captures.watch(endpoint, EXCHANGE, BROKEN) for _ in range(WAITING_MAX))
        await until(drops, within_s=WAIT_MAX_S)
    disk.fast.set()
    await until(lambda: len(disk.names()) == WAITING_MAX, within_s=WAIT_MAX_S)
    good = [captures.watch(endpoint, EXCHANGE, None) for _ in range(3)]
    assert [bool(name) for name in good] == [True, True, False]
    await until(lambda: {*good[:2]} <= {*disk.names()}, within_s=WAIT_MAX_S)
    captures.close()


async def test_workers_capture_the_next_exchanges_together(
    endpoint: Endpoint, tmp_path: Path, log_lines: LogStream
) -> None:
    disk = Disk(tmp_path)
    disk.fast.set()
    workers = [Captures(tmp_path, disk.seal, 100) for _ in range(2)]
    (tmp_path / NEXT).write_text("3\n", "ascii")
    async with running(workers[0].look()), running(workers[1].look()):
        await until(lambda: bool(workers[1].watch(endpoint, EXCHANGE, None)), within_s=WAIT_MAX_S)
        await until(lambda: bool(workers[0].watch(endpoint, EXCHANGE, None)), within_s=WAIT_MAX_S)
        await until(
            lambda: {worker.watch(endpoint, EXCHANGE, None) for worker in workers} == {""},
            within_s=WAIT_MAX_S,
        )
        assert [line["count"] for line in log_lines.of("capture next")] == [3]
    for worker in workers:
        worker.close()
    await until(lambda: len(disk.names()) == 3, within_s=WAIT_MAX_S)
    assert not disk.tickets()


@pytest.mark.parametrize(
    ("error", "is_wanted"),
    [
        (SignatureInvalid("x"), True),
        (Malformed("x"), True),
        (Unsigned("x", http_status=200), True),
        (Unsigned("x", http_status=401, claimed_code="INVALID_SIGNATURE"), True),
        (ResultError(Result("F", "INVALID_CLIENT")), True),
        (ResultError(Result("U", "INVALID_CLIENT")), False),
        (ResultError(Result("F", "USER_NOT_EXIST")), False),
        (Unsigned("x", http_status=502), False),
        (Unsigned("x", http_status=429), False),
        (Unsigned("x", http_status=302), False),
        (NotEncrypted("x"), False),
        (OutsideWindow(900.0), False),
    ],
    ids=repr,
)
def test_exchange_is_captured_if_it_ended_with_one_of_four_reasons(
    endpoint: Endpoint, tmp_path: Path, error: CallError, *, is_wanted: bool
) -> None:
    disk = Disk(tmp_path)
    disk.fast.set()
    captures = Captures(tmp_path, disk.seal, 100)
    assert bool(captures.watch(endpoint, EXCHANGE, error)) is is_wanted
    captures.close()


@pytest.mark.parametrize("text", ["many", "", "1e3"])
async def test_file_next_without_a_number_is_removed_and_captures_nothing(
    endpoint: Endpoint, tmp_path: Path, log_lines: LogStream, text: str
) -> None:
    captures = Captures(tmp_path, Disk(tmp_path).seal, 100)
    (tmp_path / NEXT).write_text(text, "ascii")
    async with running(captures.look()):
        await until(lambda: not Disk(tmp_path).names(), within_s=WAIT_MAX_S)
    assert captures.watch(endpoint, EXCHANGE, None) == ""
    assert not log_lines.of("capture next")
    captures.close()
