"""Reading the ledger's file with another program, such as sqlite3, loses no rows."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from service.ledger import LedgerUnavailable
from service.ledger.opening import fault_of
from service.ledger.sqlite.backup import restore
from service.ledger.sqlite.place import Place
from tests.ledger.levels import a_bind, ended, opened, sqlite_url


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
