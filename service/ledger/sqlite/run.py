"""What a SQLite ledger's file says of the run that writes to it, and how it is read without changing it.

`meta.run` is NULL in a file that was closed cleanly. The first transaction of a run writes an id there, and
nothing else, and a checkpoint puts that into the main file at once: a copy of the main file alone then says
that it was not closed cleanly. The last process to close sets it to NULL again, in the last transaction.
`run` changes only where the main file has all that was committed before, and no token is granted between
the change and its checkpoint: a main file and its own log never differ in both run and token. Where another
program's long read keeps the log from the main file, `run` stays as it was, and the marker alone decides.

What a crash at each point leaves:

    before the first transaction   a file that was closed cleanly, to which nothing was written
    before the checkpoint          run NULL in the main file, the id in the log, the same token in both
    while running                  the id in both, and later tokens in the log
    while closing                  as before, or NULL in the log

The log is deleted by SQLite when the last connection to a file closes, also by any other program that
opens and closes the file after a crash. So a file with an id and without a log may be whole (another
program merged the log) or lack what its log held (only the main file was copied): the marker decides.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from .. import LedgerFault
from ..identity import Absence, Found
from .schema import IDS_SINCE, version_of

_META: Final = "SELECT key_id, key_check, last_token, {} FROM meta"


class MixedFiles(LedgerFault):
    """The write-ahead log beside a database belongs to another state of it."""


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
    """Whether a write-ahead log with anything in it is beside a database; raise OSError."""
    # A reader leaves an empty one behind.
    try:
        return log_path(path).stat().st_size > 0
    except FileNotFoundError:
        return False


def inspect(path: Path, *, is_unused: bool) -> Absence | Found:
    """Read what a database says of itself, and change nothing; raise LedgerFault, OSError, sqlite3.Error.

    `is_unused` says that no process uses it, so that the main file can be read apart from its log.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return Absence.MISSING
    if size == 0:
        return Absence.EMPTY
    log = has_log(path)
    # Read so, a clean file gets no log and no shared memory beside it.
    seen = _read(path, "immutable=1" if is_unused and not log else "mode=ro")
    if is_unused and log and seen is not None:
        main = _read(path, "immutable=1")
        run, token = (main.run, main.token) if main else (None, 0)
        if run != seen.run and token != seen.token:
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


def _read(path: Path, mode: str) -> _Meta | None:
    """Read the meta row through a connection that cannot write; None where there are no tables."""
    name = f"file:{quote(str(path))}?{mode}"
    with closing(sqlite3.connect(name, uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        version = version_of(connection)
        if version == 0:
            return None
        columns = "ledger_id, run" if version >= IDS_SINCE else "NULL, NULL"
        found = connection.execute(_META.format(columns)).fetchone()
    if found is None:
        raise LedgerFault("the ledger's file is another program's database")
    return _Meta(*found)


class Run:
    """Marks a database as being written to, before the first transaction that writes."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._is_first_user = False
        self._is_marked = False

    def opened(self, *, is_alone: bool) -> None:
        """Note whether this process was the only user when it opened the file."""
        self._is_first_user = is_alone

    def mark(self, connection: sqlite3.Connection) -> None:
        """Write that the file is open, also into the main file; raise sqlite3.Error.

        In a transaction of its own, so that the main file has the mark before the log has a claim. Where a
        long read keeps it from the main file, it is taken back, and written before a later transaction.
        """
        if self._is_marked or not checkpoint(connection):
            return
        (before,) = connection.execute("SELECT run FROM meta").fetchone()
        # The id of a run that crashed is replaced. Another process that uses the file has marked it.
        if before is None or self._is_first_user:
            change = "UPDATE meta SET run = ?, backup_ms = NULL WHERE run IS ?"
            connection.execute(change, (self._run_id, before))
            if not checkpoint(connection):
                connection.execute("UPDATE meta SET run = ? WHERE run = ?", (before, self._run_id))
                return
        self._is_marked = True


def mark_closed(connection: sqlite3.Connection) -> None:
    """Write that the file was closed cleanly; a file that cannot be written, or is read, stays as it is."""
    with suppress(sqlite3.Error):
        if connection.execute("SELECT run FROM meta").fetchone() != (None,) and checkpoint(connection):
            connection.execute("UPDATE meta SET run = NULL")


def checkpoint(connection: sqlite3.Connection) -> bool:
    """Put what is in the log into the main file; return whether all of it is there."""
    try:
        _, logged, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error:
        return False
    return bool(logged == done)
