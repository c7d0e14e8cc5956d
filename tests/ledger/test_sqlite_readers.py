"""Reading the ledger's file with another program, such as sqlite3, loses no rows."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from service.ledger import Ledger, LedgerUnavailable
from service.ledger.opening import fault_of
from service.ledger.sqlite.backup import back_up, restore
from service.ledger.sqlite.file import LOG_BYTES_KEPT
from service.ledger.sqlite.place import Place
from service.ledger.sqlite.statements import COUNT_IN_DOUBT
from tests.ledger.levels import NOW_MS, a_bind, ended, granted, opened, sqlite_url


@contextmanager
def read_by_another_program(file: Path, *, for_long: bool) -> Iterator[None]:
    """Keep a connection to a ledger's file open, in a transaction if `for_long`."""
    name = f"file:{file}?mode=ro"
    with closing(sqlite3.connect(name, uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM request").fetchone()
        if not for_long:
            connection.execute("COMMIT")
        yield


async def applied(directory: Path, *request_ids: str) -> None:
    ledger, _ = opened(sqlite_url(directory))
    for request_id in request_ids:
        await ended(ledger, a_bind(request_id))
    await ledger.close()


async def ids_in(directory: Path) -> list[str]:
    assert fault_of(sqlite_url(directory), None) is None
    ledger, _ = opened(sqlite_url(directory))
    ids = sorted([row.key.request_id async for row in ledger.rows()])
    await ledger.close()
    return ids


@pytest.mark.parametrize("for_long", [False, True])
async def test_ledger_closed_during_a_read_can_be_opened(tmp_path: Path, for_long: bool) -> None:
    """Once, its log was taken for that of another file, and the way out dropped the log's requests."""
    await applied(tmp_path, "id-1")
    with read_by_another_program(tmp_path / "ledger.db", for_long=for_long):
        await applied(tmp_path, "id-2", "id-3")
        assert await ids_in(tmp_path) == ["id-1", "id-2", "id-3"]
    assert await ids_in(tmp_path) == ["id-1", "id-2", "id-3"]


async def test_ledger_opened_during_a_read_and_killed_can_be_opened(tmp_path: Path) -> None:
    (crashed := tmp_path / "crashed").mkdir()
    await applied(tmp_path, "id-1")
    ledger, _ = opened(sqlite_url(tmp_path))
    with read_by_another_program(tmp_path / "ledger.db", for_long=True):
        await ended(ledger, a_bind("id-2"))
        await ended(ledger, a_bind("id-3"))
        # These are the files that a kill would leave.
        for ending in ("", "-wal", ".key", ".key.ledgers"):
            shutil.copy(f"{tmp_path}/ledger.db{ending}", crashed)
    await ledger.close()
    assert await ids_in(crashed) == ["id-1", "id-2", "id-3"]


async def test_dirty_flag_is_set_after_a_long_read(tmp_path: Path) -> None:
    await applied(tmp_path, "id-1")
    ledger, _ = opened(sqlite_url(tmp_path))
    with read_by_another_program(tmp_path / "ledger.db", for_long=True):
        await ended(ledger, a_bind("id-2"))
    await ended(ledger, a_bind("id-3"))
    copy = Path(shutil.copy(tmp_path / "ledger.db", tmp_path / "copy.db"))
    await ledger.close()
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT run FROM meta").fetchone() != (None,)


async def test_restore_is_refused_during_a_long_read(tmp_path: Path) -> None:
    await applied(tmp_path, "id-1")
    place = Place(tmp_path / "ledger.db", None)
    with read_by_another_program(place.path, for_long=True):
        await applied(tmp_path, "id-2")
        with pytest.raises(LedgerUnavailable, match="is being read by another program"):
            restore(place, None, 0, ".aside")
    restore(place, None, 0, ".aside")
    assert await ids_in(tmp_path) == ["id-1", "id-2"]


async def test_log_that_a_reader_kept_from_being_reused_shrinks_afterwards(tmp_path: Path) -> None:
    ledger, _ = opened(sqlite_url(tmp_path))
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as reader:
        await granted(ledger, a_bind("first"))
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM request").fetchone()
        while ledger.log_bytes <= LOG_BYTES_KEPT:
            claims = [a_bind(os.urandom(8).hex(), caller="x" * 8_000) for _ in range(200)]
            await asyncio.gather(*(ledger.claim(claim, NOW_MS) for claim in claims))
        reader.execute("COMMIT")
        for number in range(3):
            await granted(ledger, a_bind(f"after-{number}"))
    assert 0 < ledger.log_bytes <= LOG_BYTES_KEPT
    await ledger.close()


async def test_backup_ends_beside_a_constant_load(tmp_path: Path) -> None:
    ledger, _ = opened(sqlite_url(tmp_path))
    claims = [a_bind(f"id-{number}") for number in range(2_000)]
    await asyncio.gather(*(ledger.claim(claim, NOW_MS) for claim in claims))
    stop = asyncio.Event()

    async def load() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await ended(ledger, a_bind(f"load-{number}"))

    loading = asyncio.create_task(load())
    async with asyncio.timeout(30):
        summary = await asyncio.to_thread(back_up, tmp_path / "ledger.db", tmp_path / "copy.db", NOW_MS)
    assert summary.requests >= 2_000
    stop.set()
    await loading
    await ledger.close()


async def test_requests_in_doubt_are_counted_through_an_index(sqlite: Ledger, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as reader:
        plan = reader.execute(f"EXPLAIN QUERY PLAN {COUNT_IN_DOUBT}", (0, 1) * 2).fetchall()
    tables = [step for *_, step in plan if "request" in step]
    assert tables
    assert all("USING INDEX request_open" in step for step in tables), tables
