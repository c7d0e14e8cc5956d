"""Read what a SQLite ledger's file contains about itself, without changing the file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from .. import LedgerFault
from ..identity import Absence, Found
from .schema import IDS_SINCE, version_of

_ALONE: Final = "immutable=1"
"""How SQLite reads a main file apart from its log, and creates no log and shared memory next to it."""
_META: Final = "SELECT key_id, key_check, last_token, {} FROM meta"


class MixedFiles(LedgerFault):
    """The write-ahead log next to a database belongs to another state of the database."""


@dataclass(frozen=True, slots=True)
class _Meta:
    key_id: str
    key_check: bytes
    token: int
    ledger_id: str | None
    run: str | None


def log_path(path: Path) -> Path:
    """Return the name of a database's write-ahead log."""
    return path.with_name(f"{path.name}-wal")


def has_log(path: Path) -> bool:
    """Whether a database has a write-ahead log that is not empty; raise OSError."""
    # A reader leaves an empty log.
    try:
        return log_path(path).stat().st_size > 0
    except FileNotFoundError:
        return False


def inspect(path: Path, *, is_unused: bool) -> Absence | Found:
    """Return what a database contains about itself; raise LedgerFault, OSError or sqlite3.Error.

    If no process uses it (`is_unused`), the main file can be read apart from its log.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return Absence.MISSING
    if size == 0:
        return Absence.EMPTY
    log = has_log(path)
    seen = _read(path, _ALONE if is_unused and not log else "mode=ro")
    if is_unused and log and seen is not None and _are_mixed(path, seen):
        raise MixedFiles(
            f"the ledger {path} and its write-ahead log {log_path(path)} do not belong together: put "
            "the right file back, or accept it without that log with: alipayhk-gateway ledger restore"
        )
    if seen is None:
        return Absence.NO_TABLES
    return Found(
        seen.key_id,
        seen.key_check,
        seen.ledger_id,
        seen.token,
        is_whole=seen.run is None or log or not is_unused,
    )


def _are_mixed(path: Path, seen: _Meta) -> bool:
    """Whether the main file shows that its log belongs to another state of the database.

    It shows nothing if a crash or a full disk has ended a checkpoint early: the file can have its new first
    page, which says how long it will be and what tables it has, and not yet the page with the row.
    """
    try:
        main = _read(path, _ALONE, is_cut_off=True)
    except (sqlite3.Error, LedgerFault):
        return False
    if main is not None and not main.key_id:
        return False
    run, token = (main.run, main.token) if main else (None, 0)
    return run != seen.run and token != seen.token


def _read(path: Path, mode: str, *, is_cut_off: bool = False) -> _Meta | None:
    """Return the meta row, or None if there are no tables, over a connection that cannot write."""
    name = f"file:{quote(os.fsencode(path))}?{mode}"
    with closing(sqlite3.connect(name, uri=True, isolation_level=None)) as connection:
        if is_cut_off:
            # Without this SQLite reads no file that is shorter than its first page says.
            connection.execute("PRAGMA writable_schema = ON")
        connection.execute("BEGIN")
        version = version_of(connection)
        if version == 0:
            return None
        columns = "ledger_id, run" if version >= IDS_SINCE else "NULL, NULL"
        found = connection.execute(_META.format(columns)).fetchone()
    if found is None:
        raise LedgerFault("the ledger's file is another program's database")
    return _Meta(*found)
