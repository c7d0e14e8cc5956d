"""The SQLite ledger's file: what is in it, how it is opened, and whether it still is at its path."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from . import LedgerFault, LedgerUnavailable

BUSY_MS: Final = 500
"""How long another process of this host is waited for."""
OPENING_S: Final = 5.0
"""How long, when the file is opened: another worker may just be making it."""
_NAP_S: Final = 0.02

# One entry for each version of the schema: what makes it from the one before. Entries never change.
# Rows are kept by rowid, not by their key: at about a kilobyte each, they fill page after page in the
# order in which they come. The index of open requests stays small; each of the others knows a row once.
_MIGRATIONS: Final = (
    """
    CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        key_id TEXT NOT NULL,
        key_check BLOB NOT NULL,
        last_token INTEGER NOT NULL
    );
    CREATE TABLE resolution (
        id INTEGER PRIMARY KEY,
        client_id TEXT NOT NULL,
        api TEXT NOT NULL,
        request_id TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('applied', 'rejected')),
        who TEXT NOT NULL,
        why TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    );
    CREATE TABLE request (
        id INTEGER PRIMARY KEY,
        client_id TEXT NOT NULL,
        api TEXT NOT NULL,
        request_id TEXT NOT NULL,
        caller TEXT NOT NULL,
        key_id TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        linkage BLOB,
        biz_time_ms INTEGER,
        state TEXT NOT NULL CHECK (state IN ('sending', 'applied', 'rejected', 'in_doubt')),
        attempts INTEGER NOT NULL,
        token INTEGER NOT NULL,
        lease_until_ms INTEGER NOT NULL,
        was_in_doubt INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        result_status TEXT,
        result_code TEXT,
        sealed BLOB,
        resolution INTEGER REFERENCES resolution (id)
    );
    CREATE UNIQUE INDEX request_key ON request (request_id, api, client_id);
    CREATE INDEX request_open ON request (linkage) WHERE state = 'sending' OR state = 'in_doubt';
    CREATE INDEX request_applied ON request (linkage, biz_time_ms) WHERE state = 'applied';
    CREATE INDEX request_final ON request (updated_ms) WHERE state IN ('applied', 'rejected');
    """,
    # A request may be refused. SQLite cannot change a CHECK: the table is made anew.
    """
    CREATE TABLE request_2 (
        id INTEGER PRIMARY KEY,
        client_id TEXT NOT NULL,
        api TEXT NOT NULL,
        request_id TEXT NOT NULL,
        caller TEXT NOT NULL,
        key_id TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        linkage BLOB,
        biz_time_ms INTEGER,
        state TEXT NOT NULL CHECK (state IN ('sending', 'applied', 'rejected', 'in_doubt', 'refused')),
        attempts INTEGER NOT NULL,
        token INTEGER NOT NULL,
        lease_until_ms INTEGER NOT NULL,
        was_in_doubt INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        result_status TEXT,
        result_code TEXT,
        sealed BLOB,
        resolution INTEGER REFERENCES resolution (id)
    );
    INSERT INTO request_2 SELECT * FROM request;
    DROP TABLE request;
    ALTER TABLE request_2 RENAME TO request;
    CREATE UNIQUE INDEX request_key ON request (request_id, api, client_id);
    CREATE INDEX request_open ON request (linkage) WHERE state = 'sending' OR state = 'in_doubt';
    CREATE INDEX request_applied ON request (linkage, biz_time_ms) WHERE state = 'applied';
    CREATE INDEX request_ended ON request (updated_ms) WHERE state IN ('applied', 'rejected', 'refused');
    """,
)
SCHEMA_VERSION: Final = len(_MIGRATIONS)


@dataclass(frozen=True, slots=True)
class KeyMark:
    """By what a database knows its key."""

    key_id: str
    key_check: bytes


class LedgerFile:
    """One database file, which stays the same file for as long as it is used."""

    def __init__(self, path: Path, mark: KeyMark) -> None:
        self.path = path
        self.mark = mark
        self._inodes: tuple[tuple[int, int], ...] | None = None

    def open(self, *, patience_s: float = 0) -> sqlite3.Connection:
        """Connect, and bring the schema up to date; raise LedgerFault where that can never work."""
        if self._inodes is not None:
            self.must_be_the_same()
        give_up = time.monotonic() + patience_s
        while True:
            try:
                return self._connect()
            except sqlite3.Error as error:
                # Switching a new file to WAL does not wait for others by itself.
                if not is_busy(error) or time.monotonic() > give_up:
                    raise
            time.sleep(_NAP_S)

    def open_to_read(self) -> sqlite3.Connection:
        """Connect for a reader that never waits for the writer, nor the writer for it."""
        self.must_be_the_same()
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_MS / 1000,
        )
        connection.execute("PRAGMA query_only = ON")
        return connection

    def must_be_the_same(self) -> None:
        """Raise LedgerUnavailable where another file, or none, is at the path: SQLite would not notice."""
        try:
            same = self._inodes_now() == self._inodes
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "")
            raise LedgerUnavailable(f"the ledger's file cannot be reached: {name}") from None
        if not same:
            raise LedgerUnavailable("the ledger's file was replaced")

    def _inodes_now(self) -> tuple[tuple[int, int], ...]:
        # What is committed stands in the write-ahead log first: it is a part of the file.
        stats = (os.stat(self.path), os.stat(f"{self.path}-wal"))  # noqa: PTH116  (twice for each commit)
        return tuple((stat.st_dev, stat.st_ino) for stat in stats)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
            if self._inodes is None:
                self._inodes = self._inodes_now()
            self.must_be_the_same()
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        # In one transaction: another worker may be making the ledger at this moment.
        connection.execute("BEGIN")
        version = _version_of(connection)
        connection.execute("COMMIT")
        if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise LedgerFault(f"the ledger {self.path} is on a file system that cannot share memory")
        connection.execute("PRAGMA synchronous = FULL")
        if version < SCHEMA_VERSION:
            self._migrate(connection)
        with closing(connection.execute("SELECT key_id, key_check FROM meta")) as found:
            key_id, key_check = found.fetchone() or ("", b"")
        if key_check != self.mark.key_check:
            raise LedgerFault(
                f"the ledger {self.path} was made with another key (its id is {key_id}, "
                f"that of LEDGER_KEY_FILE is {self.mark.key_id})"
            )

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN EXCLUSIVE")
        # Read again: another worker may have come first.
        version = _version_of(connection)
        for migration in _MIGRATIONS[version:]:
            for statement in migration.split(";"):
                connection.execute(statement)
        if version == 0:
            mark = (self.mark.key_id, self.mark.key_check)
            connection.execute("INSERT INTO meta VALUES (1, ?, ?, 0)", mark)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")


def _version_of(connection: sqlite3.Connection) -> int:
    """Return the schema's version, 0 for a new file; raise LedgerFault for what is no ledger of ours."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise LedgerFault(
            f"the ledger's schema is version {version}, newer than this gateway's {SCHEMA_VERSION}"
        )
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()
    (others,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (version > 0) != (tables > 0) or (version == 0 and others > 0):
        raise LedgerFault("the ledger's file is another program's database")
    return int(version)


def is_busy(error: BaseException) -> bool:
    """Whether somebody else holds the lock."""
    return isinstance(error, sqlite3.Error) and name_of(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def name_of(error: sqlite3.Error) -> str:
    """Name an error without its text."""
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
