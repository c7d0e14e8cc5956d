"""Open a SQLite ledger's file, and check that the same file is still at its path."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from .. import LedgerFault, LedgerUnavailable
from ..identity import KeyMark
from ..usage_lock import UsageLock
from .ballast import Ballast
from .dirty_flag import DirtyFlag, clear
from .schema import MIGRATIONS, SCHEMA_VERSION, version_of
from .write_lock import WriteLock

BUSY_TIMEOUT_MS: Final = 500
"""Timeout for SQLite's lock, which another program may hold; gateways wait in `WriteLock` instead."""
CHECKPOINT_PAGES: Final = 1000
"""A commit with more pages than this in the log copies the log into the main file."""
OPEN_TIMEOUT_S: Final = 5.0
"""Timeout while another worker opens or creates the file."""
LOG_BYTES_KEPT: Final = 8 << 20
"""The size to which the write-ahead log is truncated when it is reused; 4 MiB are usual."""
_POLL_S: Final = 0.02


class LedgerFile:
    """One database file, which must stay the same file while it is used.

    Without a lock, other users are unknown, and the file is not marked as closed cleanly.
    """

    def __init__(self, path: Path, mark: KeyMark, lock: UsageLock | None = None) -> None:
        self.path = path
        self.mark = mark
        self.dirty_flag = DirtyFlag(os.urandom(8).hex())
        self.ballast = Ballast(path)
        self.ledger_id = ""
        """The random id of the ledger; empty before the file is open."""
        self.token_at_open = 0
        self._lock = lock
        self._write_lock = None if lock is None else WriteLock(lock.descriptor)
        self._inodes: list[tuple[int, int]] | None = None
        self._parts = [f"{path}{part}" for part in ("", "-wal", "-shm")]

    def open(self, *, timeout_s: float = 0) -> sqlite3.Connection:
        """Connect, and migrate the schema; raise LedgerFault if the file can never be opened."""
        if self._inodes is not None:
            self.must_be_the_same()
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                return self._connect()
            except sqlite3.Error as error:
                # SQLite does not apply its busy timeout to the switch of a new file to WAL.
                if not is_busy(error) or time.monotonic() > deadline_s:
                    raise
            time.sleep(_POLL_S)

    @property
    def log_bytes(self) -> int:
        """Return the size of the write-ahead log, 0 if it cannot be read."""
        try:
            return os.stat(f"{self.path}-wal").st_size  # noqa: PTH116  (as in `_inodes_now`)
        except OSError:
            return 0

    def close(self, connection: sqlite3.Connection) -> None:
        """Close the writer's connection; if no other process uses the file, mark it as closed cleanly."""
        if self._lock is not None and self._lock.try_alone():
            clear(connection)
            self.ballast.remove()
        with suppress(sqlite3.Error):
            connection.close()

    def writing(self) -> AbstractContextManager[None]:
        """Hold the write lock inside a block, in order of arrival; raise LedgerUnavailable."""
        return nullcontext() if self._write_lock is None else self._write_lock.held()

    def release(self) -> None:
        """Release the usage lock."""
        if self._lock is not None:
            self._lock.release()

    def open_to_read(self) -> sqlite3.Connection:
        """Connect for a reader; it and the writer never wait for each other."""
        self.must_be_the_same()
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(self.path))}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_MS / 1000,
        )
        connection.execute("PRAGMA query_only = ON")
        return connection

    def must_be_the_same(self) -> None:
        """Raise LedgerUnavailable if the file was deleted or replaced, which SQLite does not notice."""
        try:
            same = self._inodes_now() == self._inodes
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "")
            raise LedgerUnavailable(f"the ledger's file cannot be reached: {name}") from None
        if not same:
            raise LedgerUnavailable("the ledger's file was replaced")

    def _inodes_now(self) -> list[tuple[int, int]]:
        # Commits are in the write-ahead log first, and processes find them through the shared memory. Two
        # processes with different logs or shared memory would overwrite each other's commits.
        stats = [os.stat(part) for part in self._parts]  # noqa: PTH116  (faster)
        return [(stat.st_dev, stat.st_ino) for stat in stats]

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
            if self._inodes is None:
                self._inodes = self._inodes_now()
                self.dirty_flag.opened(is_alone=self._lock is not None and self._lock.is_alone)
            self.must_be_the_same()
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        # Read in one transaction: another worker may be creating the ledger.
        connection.execute("BEGIN")
        version = version_of(connection)
        connection.execute("COMMIT")
        if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise LedgerFault(
                f"the ledger {self.path} is on a file system without shared memory: move it to a local disk"
            )
        connection.execute("PRAGMA synchronous = FULL")
        # Without a limit, the log keeps the size that it had when a reader kept it from being reused.
        connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_KEPT}")
        # Another process may be writing, so only the writer's transactions, which hold the write lock,
        # are followed by a checkpoint.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        if version < SCHEMA_VERSION:
            self._migrate(connection)
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        found = connection.execute("SELECT key_id, key_check, ledger_id, last_token FROM meta").fetchone()
        key_id, key_check, self.ledger_id, self.token_at_open = found or ("", b"", "", 0)
        self.mark.must_fit(self.path, key_id, key_check)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN EXCLUSIVE")
        # Read again: another worker may have migrated first.
        version = version_of(connection)
        for migration in MIGRATIONS[version:]:
            for statement in migration.split(";"):
                connection.execute(statement)
        if version == 0:
            connection.execute(
                "INSERT INTO meta (one, key_id, key_check, last_token, ledger_id) "
                "VALUES (1, ?, ?, 0, lower(hex(randomblob(16))))",
                (self.mark.key_id, self.mark.key_check),
            )
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")


def is_busy(error: BaseException) -> bool:
    """Whether another connection holds the lock."""
    return isinstance(error, sqlite3.Error) and name_of(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is damaged or is no database."""
    return name_of(error).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def name_of(error: sqlite3.Error) -> str:
    """Return the name of an error, without its text."""
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
