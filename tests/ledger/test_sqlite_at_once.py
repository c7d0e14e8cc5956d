"""A worker that opens a new ledger while another worker creates it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from service.ledger.identity import KeyMark
from service.ledger.sqlite.file import LedgerFile

MARK = KeyMark("k", b"check")


class Overtaken(sqlite3.Connection):
    """The slower worker's connection: the other worker creates the ledger between two of its statements."""

    others: Iterator[Path]

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if "sqlite_master" in sql:
            for path in self.others:
                # With a timeout of 0 the other worker gives up, and the slower one creates the ledger.
                with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=0)) as other:
                    make(other)
        return super().execute(sql, *values)


def make(connection: sqlite3.Connection) -> None:
    connection.executescript("BEGIN EXCLUSIVE; CREATE TABLE meta (a); PRAGMA user_version = 1; COMMIT")


def test_version_and_tables_are_read_in_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path, isolation_level=None, factory=Overtaken)) as connection:
        connection.others = iter((path,))
        LedgerFile(path, MARK)._prepare(connection)
        assert connection.execute("SELECT key_id FROM meta").fetchone() == (MARK.key_id,)
