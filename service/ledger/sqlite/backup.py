"""Back up a SQLite ledger while it is in use, and restore a backup.

A restored ledger gets a new id, and the marker removes the entry of the ledger that was at its path. The
file that was in use before, and older backups, are then refused, because they do not know the ids that were
used since. A crash during a restore leaves a ledger that is refused; the command can be run again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from .. import LedgerFault, LedgerUnavailable
from ..identity import Absence, Found, KeyMark
from ..marker import Entry
from ..ownership import give_to_owner_of
from ..vault import sync
from .dirty_flag import checkpoint
from .file import LedgerFile, is_damage, name_of
from .inspection import MixedFiles, has_log, inspect, log_path
from .place import Place

_SUMMARY: Final = """
    SELECT ledger_id, last_token, backup_ms, (SELECT count(*) FROM request),
        (SELECT count(*) FROM request
         WHERE state = 'in_doubt' OR state = 'sending' AND lease_until_ms <= :now_ms),
        (SELECT max(updated_ms) FROM request)
    FROM meta
"""
# The replaced ledger has used higher numbers of changes. They count transactions, and a transaction takes
# more than a millisecond. So the time is higher than all of them, and the cursors of readers stay valid.
_RENEW: Final = """
    UPDATE meta SET ledger_id = ?, run = NULL, backup_ms = NULL, last_change = max(last_change, ?)
"""


@dataclass(frozen=True, slots=True)
class Summary:
    """The contents of a ledger or of its copy."""

    ledger_id: str
    token: int
    backup_ms: int | None
    """The time of the backup; None in a file that was written to since."""
    requests: int
    in_doubt: int
    newest_ms: int | None
    """The time of the last change of a request; None if there are no requests."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A ledger that was restored, or accepted as it was."""

    summary: Summary
    moved_aside: tuple[Path, ...]
    marker_fault: str
    """Why the marker could not be written; empty if it was written."""


def back_up(source: Path, target: Path, now_ms: int) -> Summary:
    """Write a consistent copy of a ledger, in use or not; raise FileExistsError if the target exists.

    Also raise OSError, sqlite3.Error, and LedgerFault if the ledger is damaged.
    """
    if target.exists():
        raise FileExistsError
    with _unfinished(target) as copy:
        _vacuum(source, copy, "mode=ro")
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            _must_be_sound(connection, source)
            connection.execute("UPDATE meta SET run = NULL, backup_ms = ?", (now_ms,))
            summary = _summary(connection, now_ms)
        sync(copy)
        target.hardlink_to(copy)
        sync(target.parent)
    return summary


def restore(place: Place, backup: Path | None, now_ms: int, aside: str) -> Restored:
    """Replace a ledger by a backup, or accept the present file; its usage lock must be exclusive.

    The files that are replaced are kept under their names with the suffix `aside`. Raise LedgerFault,
    OSError or sqlite3.Error.
    """
    mark = place.key_mark()
    if backup is not None:
        with _unfinished(place.path) as copy:
            _give_to_owner(copy, place.path)
            with _errors_of_backup(backup):
                found = _found(backup, mark, "the backup")
                _vacuum(backup, copy, "mode=ro" if has_log(backup) else "immutable=1")
            summary = _renewed(copy, mark, now_ms)
            sync(copy)
            moved = _moved_aside((place.path, log_path(place.path)), aside)
            copy.replace(place.path)
            sync(place.path.parent)
    else:
        moved = _without_a_foreign_log(place.path, aside)
        found = _found(place.path, mark, "the ledger")
        summary = _renewed(place.path, mark, now_ms)
    entry = Entry(summary.token, str(place.path))
    fault = place.marker.register(summary.ledger_id, entry, replaces=found.ledger_id)
    return Restored(summary, moved, fault)


def move_log_aside(path: Path, aside: str) -> tuple[Path, ...]:
    """Rename the write-ahead log of a lost ledger, so that a new one does not read it; raise OSError."""
    return _moved_aside((log_path(path),), aside)


def _found(path: Path, mark: KeyMark, what: str) -> Found:
    found = inspect(path, is_unused=True)
    if isinstance(found, Absence):
        raise LedgerFault(
            f"{what} {path} {found}: name a backup that can be restored, or start a new ledger with: "
            "alipayhk-gateway ledger init --new"
        )
    mark.must_fit(path, found.key_id, found.key_check)
    return found


@contextmanager
def _errors_of_backup(backup: Path) -> Iterator[None]:
    """Name the backup if it is damaged, so that nobody moves the ledger away."""
    try:
        yield
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        raise LedgerFault(
            f"the backup {backup} cannot be restored: {name_of(error)}: name another backup; the ledger "
            "is unchanged"
        ) from None


def _without_a_foreign_log(path: Path, aside: str) -> tuple[Path, ...]:
    """Rename a log that belongs to another state of the file, because SQLite would mix the two."""
    try:
        inspect(path, is_unused=True)
    except MixedFiles:
        return move_log_aside(path, aside)
    return ()


def _renewed(path: Path, mark: KeyMark, now_ms: int) -> Summary:
    """Give a file a new ledger id and clear its dirty flag; return its contents, with the new id."""
    with closing(LedgerFile(path, mark).open()) as connection:
        _must_be_sound(connection, path)
        summary = _summary(connection, now_ms)
        if not checkpoint(connection):  # without it, the file and its log look mixed
            raise LedgerUnavailable(f"{path} is being read by another program: stop that program first")
        ledger_id = os.urandom(16).hex()
        connection.execute(_RENEW, (ledger_id, now_ms))
    return replace(summary, ledger_id=ledger_id)


def _summary(connection: sqlite3.Connection, now_ms: int) -> Summary:
    return Summary(*connection.execute(_SUMMARY, {"now_ms": now_ms}).fetchone())


def _must_be_sound(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise LedgerFault(f"{path} is damaged: restore another backup")


def _vacuum(source: Path, copy: Path, mode: str) -> None:
    name = f"file:{quote(os.fsencode(source))}?{mode}"
    with closing(sqlite3.connect(name, uri=True, isolation_level=None)) as connection:
        connection.execute("VACUUM INTO CAST(? AS TEXT)", (os.fsencode(copy.absolute()),))


def _give_to_owner(path: Path, of: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        give_to_owner_of(of, descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """Yield an empty file next to a target, with mode 0600, and remove it if it still exists."""
    copy = target.with_name(f"{target.name}.{os.urandom(8).hex()}")
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield copy
    finally:
        for ending in ("", "-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                copy.with_name(copy.name + ending).unlink()


def _moved_aside(paths: tuple[Path, ...], aside: str) -> tuple[Path, ...]:
    """Rename the files that are not empty, and remove those that SQLite creates again; raise OSError."""
    moved = []
    for path in paths:
        if path.exists() and path.stat().st_size:
            # The log keeps its suffix, so that SQLite finds it next to its database.
            base, log = path.name.removesuffix("-wal"), path.name.endswith("-wal")
            moved.append(path.rename(path.with_name(f"{base}{aside}{'-wal' if log else ''}")))
    for ending in ("-wal", "-shm"):
        for path in paths:
            with suppress(FileNotFoundError):
                path.with_name(path.name.removesuffix("-wal") + ending).unlink()
    return tuple(moved)
