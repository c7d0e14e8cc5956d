"""From `LEDGER_URL` and `LEDGER_KEY_FILE` to a ledger that can be used, or a sentence why not."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import Ledger, LedgerFault, LedgerUnavailable
from .memory import MemoryLedger
from .off import OffLedger
from .sqlite.place import Place, naming_faults, open_place, using
from .usage_lock import is_unused
from .vault import KEY_BYTES, RandomBytes, Vault, read_key_file

OFF: Final = "off"
MEMORY: Final = "memory:"
SQLITE: Final = "sqlite:///"
LOCK_S: Final = 15.0
"""How long another process is waited for that makes, opens or restores the same ledger."""
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
    if not url.startswith(SQLITE):
        return None
    path = Path(url.removeprefix(SQLITE)).absolute()
    # SQLite follows a link to the file, and keeps the log beside that: so must the lock and the key be.
    return Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114  (never raises)


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
    url: str,
    key_file: Path | None,
    *,
    random_bytes: RandomBytes,
    create: bool = True,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[Ledger, Vault]:
    """Open a ledger and what seals its rows; raise LedgerFault, or LedgerUnavailable where others hold it.

    Without `create`, it must be there. `report` is called with the cause when its marker file cannot be
    written any more.
    """
    try:
        check_url(url)
    except ValueError as error:
        raise LedgerFault(f"LEDGER_URL {error}") from None
    if (path := sqlite_path(url)) is None:
        # Nothing outlives this process, so that its key need not either.
        key = random_bytes(KEY_BYTES) if key_file is None else read_key_file(key_file)
        return OffLedger() if url == OFF else MemoryLedger(), Vault(key, random_bytes=random_bytes)
    place = Place(path, key_file)
    if key_file is not None:
        read_key_file(key_file)
    if not create and not path.exists():
        raise LedgerFault(f"there is no ledger {path}")
    place.must_be_writable()
    with using(path, create=create) as lock:
        with naming_faults(path, "opened"):
            lock.acquire(LOCK_S)
            if place.examine(is_alone=lock.is_alone) is not None and not create:
                raise LedgerFault(f"there is no ledger {path}: its file is empty")
        ledger, vault = open_place(place, lock, random_bytes, report)
        lock.share()
    return ledger, vault


def fault_of(url: str, key_file: Path | None) -> str | None:
    """Return the sentence with which `serve` would refuse a ledger now, else None; write nothing."""
    if (path := sqlite_path(url)) is None:
        return None
    try:
        with naming_faults(path, "opened"):
            (place := Place(path, key_file)).must_be_writable()
            place.examine(is_alone=is_unused(path))
    except LedgerFault as fault:
        return str(fault)
    except LedgerUnavailable:  # another program holds it for a moment
        return None
    return None
