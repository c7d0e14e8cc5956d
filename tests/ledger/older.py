"""Ledgers in the formats of earlier versions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from service.ledger.sqlite.schema import MIGRATIONS


def back_to_version(version: int, path: Path) -> None:
    """Rewrite a closed ledger in the schema of version 1 or 2, and remove its marker and lock."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        kept = {}
        for table in ("meta", "resolution", "request"):
            found = connection.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in found.description]
            kept[table] = [dict(zip(names, row, strict=True)) for row in found]
        for table in ("request", "resolution", "meta", "clock_mark"):
            connection.execute(f"DROP TABLE {table}")
        for migration in MIGRATIONS[:version]:
            connection.executescript(migration)
        for table, rows in kept.items():
            names = [column[1] for column in connection.execute(f"PRAGMA table_info({table})")]
            places = ", ".join("?" * len(names))
            values = [[row[name] for name in names] for row in rows]
            connection.executemany(f"INSERT INTO {table} VALUES ({places})", values)
        connection.execute(f"PRAGMA user_version = {version}")
    for name in (f"{path.name}.key.ledgers", f"{path.name}.lock"):
        path.with_name(name).unlink()
