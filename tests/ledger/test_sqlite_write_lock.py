"""Several processes on one ledger write in order of arrival, and none is refused while the others write."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import F_UNLCK, F_WRLCK
from pathlib import Path

import pytest

from service.ledger import Granted, Ledger, LedgerUnavailable
from service.ledger.sqlite.ledger import SqliteLedger
from service.ledger.sqlite.write_lock import _FIRST_TICKET, QUEUE_TIMEOUT_S, WriteLock
from service.ledger.usage_lock import lock_path
from tests.ledger.levels import NOW_MS, a_claim, opened, sqlite_url

FSYNC_S = 0.1


@contextmanager
def write_lock(directory: Path, timeout_s: float = QUEUE_TIMEOUT_S) -> Iterator[WriteLock]:
    """Yield the write lock of another process."""
    descriptor = os.open(lock_path(directory / "ledger.db"), os.O_RDWR)
    try:
        yield WriteLock(descriptor, timeout_s)
    finally:
        os.close(descriptor)


def slow_down(ledger: Ledger, number: int, committed: list[int]) -> None:
    """Let each commit take as long as on a slow disk, and append the number of its worker."""
    assert isinstance(ledger, SqliteLedger)

    def on_statement(statement: str) -> None:
        if statement == "COMMIT":
            committed.append(number)
            time.sleep(FSYNC_S)

    ledger._writer._tables.connection.set_trace_callback(on_statement)


def give_up_after(ledger: Ledger, timeout_s: float) -> None:
    assert isinstance(ledger, SqliteLedger)
    assert ledger._file._write_lock is not None
    ledger._file._write_lock._timeout_s = timeout_s


async def test_three_workers_on_a_slow_disk_refuse_nothing(tmp_path: Path) -> None:
    ledgers = [opened(sqlite_url(tmp_path))[0] for _ in range(3)]
    committed: list[int] = []

    async def claimed(number: int) -> None:
        claim = a_claim(f"id-{number}", linkage=b"%d" % number)
        assert isinstance(await ledgers[number % 3].claim(claim, NOW_MS), Granted)

    for number, ledger in enumerate(ledgers):
        slow_down(ledger, number, committed)
    async with asyncio.TaskGroup() as group:
        for number in range(180):
            group.create_task(claimed(number))
            await asyncio.sleep(1 / 60)
    # A claim waits for the commit in progress, for one of each other worker, and for its own.
    for number in range(3):
        places = [-1, *(place for place, worker in enumerate(committed) if worker == number)]
        waits = [after - before for before, after in itertools.pairwise(places)]
        assert max(waits) < 10, "a worker was overtaken again and again"
    for ledger in ledgers:
        await ledger.close()


async def test_operations_that_arrive_during_the_wait_share_the_commit(
    sqlite: Ledger, tmp_path: Path
) -> None:
    assert isinstance(sqlite, SqliteLedger)
    statements: list[str] = []
    sqlite._writer._tables.connection.set_trace_callback(statements.append)
    with write_lock(tmp_path) as other:
        with other.held():
            claims = []
            for number in range(5):
                claims.append(asyncio.ensure_future(sqlite.claim(a_claim(f"id-{number}"), NOW_MS)))
                await asyncio.sleep(0.02)
        await asyncio.gather(*claims)
    assert statements.count("BEGIN IMMEDIATE") == 1


async def test_nothing_is_written_or_checkpointed_while_another_process_writes(
    sqlite: Ledger, tmp_path: Path
) -> None:
    give_up_after(sqlite, 0.1)
    with write_lock(tmp_path) as other:
        with other.held():
            with pytest.raises(LedgerUnavailable, match="another process keeps"):
                await sqlite.claim(a_claim(), NOW_MS)
            assert isinstance(await sqlite.look(a_claim(), NOW_MS), Granted), "reading needs no lock"
        assert isinstance(await sqlite.claim(a_claim(), NOW_MS), Granted)


async def test_a_commit_and_its_checkpoint_hold_the_write_lock(sqlite: Ledger, tmp_path: Path) -> None:
    assert isinstance(sqlite, SqliteLedger)
    held: list[bool] = []

    def on_statement(_: str) -> None:
        try:
            with other.held():
                held.append(False)
        except LedgerUnavailable:
            held.append(True)

    with write_lock(tmp_path, timeout_s=0) as other:
        sqlite._writer._tables.connection.set_trace_callback(on_statement)
        await sqlite.claim(a_claim(), NOW_MS)  # the first one also sets the dirty flag, with checkpoints
    assert len(held) > 5
    assert all(held)


async def test_a_process_that_was_stopped_in_the_queue_delays_the_others_once(
    sqlite: Ledger, tmp_path: Path
) -> None:
    with write_lock(tmp_path) as stopped:
        assert stopped._set(F_WRLCK, time.monotonic_ns(), 1)
        for number, is_delayed in enumerate((True, False)):
            started_s = time.monotonic()
            claim = a_claim(f"id-{number}", linkage=b"%d" % number)
            assert isinstance(await sqlite.claim(claim, NOW_MS), Granted)
            assert (time.monotonic() - started_s >= QUEUE_TIMEOUT_S) is is_delayed


def test_process_that_writes_or_gave_up_has_no_ticket(tmp_path: Path) -> None:
    """Those that came later do not wait for its ticket."""
    lock_path(tmp_path / "ledger.db").touch()
    with write_lock(tmp_path) as writer, write_lock(tmp_path, timeout_s=0) as other:
        with writer.held():
            assert other._set(F_WRLCK, _FIRST_TICKET, 0)
            other._set(F_UNLCK, _FIRST_TICKET, 0)
            with pytest.raises(LedgerUnavailable), other.held():
                pass
            assert writer._set(F_WRLCK, _FIRST_TICKET, 0)
        assert other._set(F_WRLCK, 0, 0)


def test_process_does_not_wait_for_those_that_came_later(tmp_path: Path) -> None:
    lock_path(tmp_path / "ledger.db").touch()
    with write_lock(tmp_path) as stopped, write_lock(tmp_path, timeout_s=0.1) as lock:
        assert stopped._set(F_WRLCK, time.monotonic_ns(), 1)
        with lock.held():
            assert lock._ignored_below > _FIRST_TICKET, "the stopped process delayed it once"
        ignored_below = lock._ignored_below
        assert stopped._set(F_WRLCK, time.monotonic_ns() + 60 * 10**9, 1)
        with lock.held():
            assert lock._ignored_below == ignored_below
