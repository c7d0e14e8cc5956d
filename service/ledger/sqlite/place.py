"""The files of a SQLite ledger (database, key, marker, lock), and how to open or create it there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .. import LedgerFault, LedgerUnavailable
from ..identity import Absence, Found, KeyMark, begin_marker, refusal_to_make, refusal_to_open
from ..marker import Marker
from ..ownership import give_to_owner_of
from ..usage_lock import UsageLock, lock_path
from ..vault import RandomBytes, Vault, make_key_file, read_key_file, sync
from .ballast import ballast_path
from .file import LedgerFile, is_busy, is_damage, name_of
from .inspection import has_log, inspect, log_path
from .ledger import SqliteLedger

_RESTORE: Final = "restore a backup with: alipayhk-gateway ledger restore FILE"
_START_NEW: Final = "start a new one with: alipayhk-gateway ledger init --new"


@dataclass(frozen=True, slots=True)
class Place:
    """The paths of one ledger."""

    path: Path
    configured_key_file: Path | None
    """LEDGER_KEY_FILE; if None, the key is next to the database and is created with it."""

    @property
    def key_file(self) -> Path:
        """Return the path of the key, which may not exist yet."""
        return self.configured_key_file or self.path.with_name(f"{self.path.name}.key")

    @property
    def marker(self) -> Marker:
        """Return the key's marker file."""
        return Marker(self.key_file)

    @property
    def makes_key(self) -> bool:
        """Whether a new ledger gets a new key."""
        return self.configured_key_file is None and not self.key_file.exists()

    def key_mark(self) -> KeyMark:
        """Return the values that a database stores to recognize this key; raise LedgerFault."""
        try:
            vault = Vault(read_key_file(self.key_file), random_bytes=os.urandom)
        except LedgerFault as fault:
            raise LedgerFault(
                f"{fault}: put the key back, or, if losing the records of the ledger {self.path} is "
                f"acceptable, move key and ledger away and {_START_NEW}"
            ) from None
        return KeyMark(vault.key_id, vault.key_check)

    def must_be_writable(self) -> None:
        """Raise LedgerFault if this user cannot write a file that an open ledger writes."""
        for file in (self.path, lock_path(self.path), log_path(self.path)):
            if os.path.exists(file) and not os.path.isfile(file):  # noqa: PTH110, PTH113  (never raise)
                raise LedgerFault(
                    f"the ledger {self.path} cannot be used: {file} is not a regular file: move it away, "
                    "or name another file in LEDGER_URL"
                )
        directory = self.path.parent
        needed = {directory: os.W_OK | os.X_OK} if directory.is_dir() else {}
        for file in (self.path, lock_path(self.path), log_path(self.path), ballast_path(self.path)):
            if needed and file.is_file():
                needed[file] = os.R_OK | os.W_OK
        for path, access in needed.items():
            if not os.access(path, access):
                raise LedgerFault(
                    f"the ledger {self.path} cannot be used: this user (uid {os.geteuid()}) cannot write "
                    f"{path}: give it to this user, run as its owner, or mount it writable"
                )

    def examine(self, *, is_alone: bool) -> Absence | None:
        """Return how the database is absent if it may be created, or None if it may be opened.

        Raise LedgerFault if neither is allowed; write nothing.
        """
        entries = None if self.makes_key else self.marker.read()
        found = inspect(self.path, is_unused=is_alone)
        if isinstance(found, Found):
            self.key_mark().must_fit(self.path, found.key_id, found.key_check)
            refusal = refusal_to_open(found, str(self.path), str(log_path(self.path)), self.marker, entries)
        else:
            self.must_be_free(found, is_alone=is_alone)
            refusal = refusal_to_make(
                found,
                str(self.path),
                self.marker,
                entries,
                makes_key=self.makes_key,
                key_is_configured=self.configured_key_file is not None,
            )
            if not self.makes_key:
                read_key_file(self.key_file)
        if refusal:
            raise LedgerFault(refusal)
        return None if isinstance(found, Found) else found

    def must_be_free(self, absence: Absence, *, is_alone: bool) -> None:
        """Raise LedgerFault if another process or a log shows that there was a database."""
        if not is_alone:
            raise LedgerFault(
                f"the ledger {self.path} {absence}, and another process still uses it: put it back, or "
                f"stop that process and {_RESTORE}"
            )
        if absence is not Absence.NO_TABLES and has_log(self.path):
            raise LedgerFault(
                f"the ledger {self.path} {absence}, and its write-ahead log {log_path(self.path)} is still "
                f"there: put the ledger back, or {_RESTORE}"
            )


@contextmanager
def lock_of(path: Path, *, create: bool = True) -> Iterator[UsageLock]:
    """Yield a ledger's usage lock, and release it if the block fails; raise LedgerFault."""
    try:
        lock = UsageLock(path)
    except OSError as error:
        done = "created" if create and not path.exists() else "opened"
        raise LedgerFault(f"the ledger {path} cannot be {done}: {error.strerror}") from None
    try:
        yield lock
    except BaseException:
        lock.release()
        raise


@contextmanager
def file_errors_as_faults(path: Path, what: str) -> Iterator[None]:
    """Turn the errors of a file into LedgerFault, or into LedgerUnavailable if the file is busy."""
    try:
        yield
    except sqlite3.Error as error:
        text = f"the ledger {path} cannot be {what}: {name_of(error)}"
        if is_damage(error):
            text += f": {_RESTORE}, or, if losing its records is acceptable, move it away and {_START_NEW}"
        raise (LedgerUnavailable if is_busy(error) else LedgerFault)(text) from None
    except OSError as error:
        raise LedgerFault(f"the ledger {path} cannot be {what}: {error.strerror}") from None


def open_place(
    place: Place,
    lock: UsageLock,
    random_bytes: RandomBytes,
    report: Callable[[str], None] = lambda _: None,
    *,
    needs_marker: bool = True,
) -> tuple[SqliteLedger, Vault]:
    """Open a ledger that was examined, or create it if it is absent and the lock is exclusive.

    With `needs_marker`, create no ledger whose marker cannot be written, because its loss would not be
    noticed. A crash leaves either a marker that lists no ledger, and the next start creates the ledger, or
    a database that the marker does not list yet, and the next start adopts it.
    """
    path, marker = place.path, place.marker
    with file_errors_as_faults(path, "created" if lock.is_alone and not path.exists() else "opened"):
        found = inspect(path, is_unused=True) if lock.is_alone else None
        if isinstance(found, Absence):
            _prepare_creation(place, found, random_bytes, needs_marker=needs_marker)
        vault = Vault(read_key_file(place.key_file), random_bytes=random_bytes)
        file = LedgerFile(path, KeyMark(vault.key_id, vault.key_check), lock)
        try:
            return SqliteLedger(file, marker, report), vault
        except LedgerUnavailable as error:
            raise LedgerFault(f"the ledger {path} cannot be opened: {error}") from None


def _prepare_creation(
    place: Place, absence: Absence, random_bytes: RandomBytes, *, needs_marker: bool
) -> None:
    """Create the marker, a key if none is configured, and an empty database with mode 0600."""
    if place.makes_key:
        # The marker of an earlier key does not apply to the new key.
        place.marker.change(lambda _: {})
        make_key_file(place.key_file, random_bytes=random_bytes)
    else:
        begin_marker(place.marker, absence, str(place.path), needs_marker=needs_marker)
    with suppress(FileExistsError):
        descriptor = os.open(place.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        give_to_owner_of(place.path.parent, descriptor)
        os.close(descriptor)
    sync(place.path.parent)
