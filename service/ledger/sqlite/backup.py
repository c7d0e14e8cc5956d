"""Copies of a SQLite ledger: a backup of a live one, and one put back in its place.

A ledger that is put back gets a new id, and the marker forgets the one that was at its place: a file that
was in use before, or an older backup, is then refused and cannot take over the ids that were used since.
A crash in between leaves a ledger that is refused, and the command can be run again.
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
from ..identity import Absence, Found
from ..marker import Entries, Entry, Marker
from ..ownership import give_to_owner_of
from ..vault import sync_directory
from .dirty_flag import checkpoint
from .file import KeyMark, LedgerFile
from .inspection import MixedFiles, has_log, inspect, log_path
from .place import Place

_SUMMARY: Final = """
    SELECT ledger_id, last_token, backup_ms, (SELECT count(*) FROM request),
        (SELECT count(*) FROM request
         WHERE state = 'in_doubt' OR state = 'sending' AND lease_until_ms <= :now_ms),
        (SELECT max(updated_ms) FROM request)
    FROM meta
"""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is in a ledger or in a copy of it."""

    ledger_id: str
    token: int
    backup_ms: int | None
    """When the copy was made; None in a file that was written to since."""
    requests: int
    in_doubt: int
    newest_ms: int | None
    """When a request last changed; None where there is none."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A ledger that was put in place, or accepted."""

    summary: Summary
    moved_aside: tuple[Path, ...]
    marker_fault: str
    """Why the marker could not be written; empty where it was."""


def back_up(source: Path, target: Path, now_ms: int) -> Summary:
    """Write a consistent copy of a ledger, in use or not; raise FileExistsError rather than overwrite.

    Also raise OSError, sqlite3.Error, and LedgerFault where the ledger is damaged.
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
        _sync(copy)
        target.hardlink_to(copy)
        sync_directory(target.parent)
    return summary


def restore(place: Place, backup: Path | None, now_ms: int, aside: str) -> Restored:
    """Put a backup in a ledger's place, or accept the file that is there; its lock must be exclusive.

    What was there before is kept, with `aside` after its name. Raise LedgerFault, OSError, sqlite3.Error.
    """
    mark = place.key_mark()
    if backup is not None:
        with _unfinished(place.path) as copy:
            _give_to_owner(copy, place.path)
            found = _found(backup, mark, "the backup")
            _vacuum(backup, copy, "mode=ro" if has_log(backup) else "immutable=1")
            summary = _renewed(copy, mark, now_ms)
            _sync(copy)
            moved = _moved_aside((place.path, log_path(place.path)), aside)
            copy.replace(place.path)
            sync_directory(place.path.parent)
    else:
        moved = _without_a_foreign_log(place.path, aside)
        found = _found(place.path, mark, "the ledger")
        summary = _renewed(place.path, mark, now_ms)
    entry = Entry(summary.token, str(place.path))
    fault = register(place.marker, summary.ledger_id, entry, replaces=found.ledger_id)
    return Restored(summary, moved, fault)


def register(marker: Marker, ledger_id: str, entry: Entry, *, replaces: str | None = None) -> str:
    """Let the marker name this ledger and no other at its place; return why it cannot be written."""

    def begun(entries: Entries) -> Entries:
        others = {
            other_id: other
            for other_id, other in entries.items()
            if other.where != entry.where and other_id != replaces
        }
        return {**others, ledger_id: entry}

    try:
        marker.change(begun)
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def move_log_aside(path: Path, aside: str) -> tuple[Path, ...]:
    """Move the write-ahead log of a ledger that is gone out of the way of a new one; raise OSError."""
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


def _without_a_foreign_log(path: Path, aside: str) -> tuple[Path, ...]:
    """Move a log away that belongs to another state of the file: SQLite would mix the two."""
    try:
        inspect(path, is_unused=True)
    except MixedFiles:
        return move_log_aside(path, aside)
    return ()


def _renewed(path: Path, mark: KeyMark, now_ms: int) -> Summary:
    """Give a file a new ledger id and mark it as closed cleanly; return what was in it, with the new id."""
    with closing(LedgerFile(path, mark).open()) as connection:
        _must_be_sound(connection, path)
        summary = _summary(connection, now_ms)
        if not checkpoint(connection):  # else the file and its log would look as if they were mixed
            raise LedgerUnavailable(f"{path} is being read by another program: end that first")
        ledger_id = os.urandom(16).hex()
        connection.execute("UPDATE meta SET ledger_id = ?, run = NULL, backup_ms = NULL", (ledger_id,))
    return replace(summary, ledger_id=ledger_id)


def _summary(connection: sqlite3.Connection, now_ms: int) -> Summary:
    return Summary(*connection.execute(_SUMMARY, {"now_ms": now_ms}).fetchone())


def _must_be_sound(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise LedgerFault(f"{path} is damaged: restore another backup")


def _vacuum(source: Path, copy: Path, mode: str) -> None:
    name = f"file:{quote(str(source))}?{mode}"
    with closing(sqlite3.connect(name, uri=True, isolation_level=None)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy.absolute()),))


def _give_to_owner(path: Path, of: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        give_to_owner_of(of, descriptor)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """Give a block an empty file beside a target, for this user alone, and remove what is left of it."""
    copy = target.with_name(f"{target.name}.{os.urandom(8).hex()}")
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield copy
    finally:
        for ending in ("", "-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                copy.with_name(copy.name + ending).unlink()


def _moved_aside(paths: tuple[Path, ...], aside: str) -> tuple[Path, ...]:
    """Rename files that have anything in them, and remove what SQLite makes again; raise OSError."""
    moved = []
    for path in paths:
        if path.exists() and path.stat().st_size:
            # The log keeps the name by which SQLite finds it beside its database.
            base, log = path.name.removesuffix("-wal"), path.name.endswith("-wal")
            moved.append(path.rename(path.with_name(f"{base}{aside}{'-wal' if log else ''}")))
    for ending in ("-wal", "-shm"):
        for path in paths:
            with suppress(FileNotFoundError):
                path.with_name(path.name.removesuffix("-wal") + ending).unlink()
    return tuple(moved)
