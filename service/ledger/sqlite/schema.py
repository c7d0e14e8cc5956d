"""The SQLite ledger's schema, as migrations."""

from __future__ import annotations

import sqlite3
from typing import Final

from .. import LedgerFault

# Each entry migrates the schema from the version before it. Entries never change.
# Tables have a rowid, not the key as primary key: rows of about 1 KB each then fill the pages in the order
# of their arrival. The index of open requests stays small; each other index has one entry a row at most.
MIGRATIONS: Final = (
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
    # Adds the state `refused`. SQLite cannot change a CHECK, so the table is created anew.
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
    # Adds the ledger's id and the dirty flag `run` (see `dirty_flag`). `backup_ms` is the time of a backup,
    # and NULL after the first write to it. `clock_mark` has the last token at times when the clock was
    # right (see `Ledger.drop`).
    """
    ALTER TABLE meta ADD COLUMN ledger_id TEXT;
    ALTER TABLE meta ADD COLUMN run TEXT;
    ALTER TABLE meta ADD COLUMN backup_ms INTEGER;
    UPDATE meta SET ledger_id = lower(hex(randomblob(16)));
    CREATE TABLE clock_mark (at_ms INTEGER PRIMARY KEY, token INTEGER NOT NULL);
    """,
    # Adds the order of changes, which does not depend on a clock: `change` is the number of the transaction
    # that changed a row last. It is NULL in rows of an earlier version: their order is `updated_ms`, and
    # the numbers continue after it. The index of open requests finds those in flight for a linkage
    # without reading those in doubt.
    """
    ALTER TABLE request ADD COLUMN change INTEGER;
    ALTER TABLE meta ADD COLUMN last_change INTEGER NOT NULL DEFAULT 0;
    UPDATE meta SET last_change = coalesce((SELECT max(updated_ms) FROM request), 0);
    CREATE INDEX request_change ON request (coalesce(change, updated_ms));
    DROP INDEX request_open;
    CREATE INDEX request_open ON request (linkage, state) WHERE state = 'sending' OR state = 'in_doubt';
    """,
)
SCHEMA_VERSION: Final = len(MIGRATIONS)

IDS_SINCE: Final = 3
"""The first schema version with a ledger id."""


def version_of(connection: sqlite3.Connection) -> int:
    """Return the schema's version, 0 for a new file; raise LedgerFault if the file is no ledger."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise LedgerFault(
            f"the ledger's schema is version {version}, newer than this gateway's {SCHEMA_VERSION}: "
            "run the version of the gateway that wrote it"
        )
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()
    (others,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (version > 0) != (tables > 0) or (version == 0 and others > 0):
        raise LedgerFault("the ledger's file is another program's database")
    return int(version)
