"""The dirty flag of a SQLite ledger: whether its file was closed cleanly.

The flag is `meta.run`. It is NULL in a file that was closed cleanly; while a ledger is open, it is the id
of the run that writes to it. The first transaction of a run writes only this id, and a checkpoint copies it
into the main file before any token is granted: a copy of the main file alone then shows that it was not
closed cleanly. The last process to close the file sets the flag to NULL again, in the last transaction.

The flag changes only when the main file has everything that was committed before, and no token is granted
between the change and its checkpoint. So a main file and its own log never differ in both flag and token.
If another program's long read keeps the log from being copied, the flag stays as it was, and the marker
alone decides whether the file is an older copy.

A crash leaves:

    before the first transaction   a file that was closed cleanly and has no new data
    before the checkpoint          NULL in the main file, the id in the log, the same token in both
    while running                  the id in both, later tokens in the log
    while closing                  the same, or NULL in the log

SQLite deletes the log when the last connection to a file closes, also when another program opens and closes
the file after a crash. So a file with an id and without a log may be complete (another program merged the
log) or lack the data of its log (only the main file was copied): the marker decides.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Final

CHANGES_LOST_MAX: Final = 1_000_000
"""More changes than a power loss can undo, because they were not durable yet.

An export may have read their numbers (`Row.change`), so no later change may get them.
"""


class DirtyFlag:
    """Sets the dirty flag of a database before the first transaction that writes."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._was_alone_at_open = False
        self._is_set = False

    def opened(self, *, is_alone: bool) -> None:
        """Note whether this process was the only user when it opened the file."""
        self._was_alone_at_open = is_alone

    def set(self, connection: sqlite3.Connection) -> None:
        """Write the id of this run, also into the main file; raise sqlite3.Error.

        It has a transaction of its own, so that the main file has the flag before the log has a claim. If a
        long read keeps it from the main file, it is undone and tried again before a later transaction.
        """
        if self._is_set or not checkpoint(connection):
            return
        (before,) = connection.execute("SELECT run FROM meta").fetchone()
        # Replace the id of a run that crashed, but not that of another process that uses the file now.
        if before is None or self._was_alone_at_open:
            lost = 0 if before is None else CHANGES_LOST_MAX
            change = (
                "UPDATE meta SET run = ?, backup_ms = NULL, last_change = last_change + ? WHERE run IS ?"
            )
            connection.execute(change, (self._run_id, lost, before))
            if not checkpoint(connection):
                connection.execute("UPDATE meta SET run = ? WHERE run = ?", (before, self._run_id))
                return
        self._is_set = True


def clear(connection: sqlite3.Connection) -> None:
    """Write that the file was closed cleanly, unless the file cannot be written or a read blocks it."""
    with suppress(sqlite3.Error):
        if connection.execute("SELECT run FROM meta").fetchone() != (None,) and checkpoint(connection):
            connection.execute("UPDATE meta SET run = NULL")


def checkpoint(connection: sqlite3.Connection) -> bool:
    """Copy the log into the main file; return whether all of it was copied."""
    try:
        _, logged, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error:
        return False
    return bool(logged == done)
