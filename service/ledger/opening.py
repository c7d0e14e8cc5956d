"""From `LEDGER_URL` and `LEDGER_KEY_FILE` to a ledger that can be used, or a sentence why not."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from . import Ledger, LedgerFault, LedgerUnavailable
from .memory import MemoryLedger
from .off import OffLedger
from .sqlite import SqliteLedger
from .sqlite_file import KeyMark, LedgerFile, name_of
from .vault import KEY_BYTES, RandomBytes, Vault, make_key_file, read_key_file

OFF: Final = "off"
MEMORY: Final = "memory:"
SQLITE: Final = "sqlite:///"
NEW_KEY_S: Final = 60.0
"""A key that is older, and has no database, had one."""
POSTGRES: Final = ("postgresql://", "postgres://")


def check_url(url: str) -> str:
    """Return the address of a ledger that this version knows; raise ValueError."""
    if url.startswith(POSTGRES):
        raise ValueError("names PostgreSQL, which comes with a later version")
    name = url.removeprefix(SQLITE)
    if url not in {OFF, MEMORY} and (name == url or not name or set(name) & set("?#\0")):
        raise ValueError("must be off, memory:, sqlite:///file or sqlite:////absolute/file")
    return url


def sqlite_path(url: str) -> Path | None:
    """Return where the file is; None for a ledger that has none."""
    return Path(url.removeprefix(SQLITE)).absolute() if url.startswith(SQLITE) else None


def is_new(path: Path) -> bool:
    """Whether nothing was ever written to a ledger's file; raise OSError where that cannot be seen."""
    return not path.exists() or path.stat().st_size == 0


def url_in_place(text: str) -> str:
    """As check_url; the directory of a SQLite file must be there too."""
    url = check_url(text)
    if path := sqlite_path(url):
        try:
            mode = path.parent.stat().st_mode
            reason = None if stat.S_ISDIR(mode) else os.strerror(errno.ENOTDIR)
        except OSError as error:
            reason = error.strerror
        if reason:
            raise ValueError(f"names a file in a directory that cannot be used: {reason}")
    return url


def open_ledger(
    url: str, key_file: Path | None, *, random_bytes: RandomBytes, create: bool = True
) -> tuple[Ledger, Vault]:
    """Open a ledger and what seals its rows; raise LedgerFault. Without `create`, it must be there."""
    try:
        check_url(url)
    except ValueError as error:
        raise LedgerFault(f"LEDGER_URL {error}") from None
    if (path := sqlite_path(url)) is None:
        # Nothing outlives this process, so that its key need not either.
        key = random_bytes(KEY_BYTES) if key_file is None else read_key_file(key_file)
        return OffLedger() if url == OFF else MemoryLedger(), Vault(key, random_bytes=random_bytes)
    vault = Vault(_key_of(path, key_file, random_bytes, create=create), random_bytes=random_bytes)
    return _open_sqlite(path, vault), vault


def _open_sqlite(path: Path, vault: Vault) -> SqliteLedger:
    try:
        _make_private(path)
        return SqliteLedger(LedgerFile(path, KeyMark(vault.key_id, vault.key_check)))
    except sqlite3.Error as error:
        raise LedgerFault(f"the ledger {path} cannot be opened: {name_of(error)}") from None
    except OSError as error:
        raise LedgerFault(f"the ledger {path} cannot be opened: {error.strerror}") from None
    except LedgerUnavailable as error:
        raise LedgerFault(f"the ledger {path} cannot be opened: {error}") from None


def _key_of(path: Path, key_file: Path | None, random_bytes: RandomBytes, *, create: bool) -> bytes:
    """Read the key of a database, or make one for a new database where none is configured."""
    beside = path.with_name(f"{path.name}.key")
    try:
        begins = is_new(path)
        if begins and not create:
            raise LedgerFault(f"there is no ledger {path}")
        if not path.exists():
            _must_not_be_lost(path, beside if key_file is None else None)
        if key_file is None and begins and not beside.exists():
            with suppress(FileExistsError):  # another worker has just made it
                make_key_file(beside, random_bytes=random_bytes)
    except OSError as error:
        raise LedgerFault(f"the ledger {path} cannot be made: {error.strerror}") from None
    return read_key_file(beside if key_file is None else key_file)


def _must_not_be_lost(path: Path, key: Path | None) -> None:
    """Refuse to begin anew where a ledger was: what was in doubt would be forgotten, and sent again."""
    log = Path(f"{path}-wal")
    left = [log] if log.exists() else []
    # Another worker that begins now may have made the key, and the database not yet.
    if key is not None and key.exists() and time.time() - key.stat().st_mtime > NEW_KEY_S:
        left.append(key)
    if left:
        names = " and ".join(str(name) for name in left)
        raise LedgerFault(
            f"the ledger {path} is gone, and its {names} is still there: "
            "put the ledger back, or remove that to begin a new one"
        )


def _make_private(path: Path) -> None:
    """Make a new database readable by this user alone; SQLite gives its other files the same mode."""
    # An old one is not even opened: closing it would take SQLite's locks away from this process.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
