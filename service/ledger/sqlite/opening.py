"""From a LEDGER_URL that names a SQLite file to an open ledger, or a sentence that says why not."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Final

from .. import LedgerFault, LedgerUnavailable
from ..usage_lock import is_unused
from ..vault import RandomBytes, Vault, read_key_file
from .ledger import SqliteLedger
from .place import Place, file_errors_as_faults, lock_of, open_place

SCHEME: Final = "sqlite:///"
FORMS: Final = (f"{SCHEME}file", f"{SCHEME}/absolute/file")
LOCK_TIMEOUT_S: Final = 15.0
"""How long to wait for another process that creates, opens or restores the same ledger."""


def url_of(path: Path | str) -> str:
    """Return the LEDGER_URL that names a file."""
    return f"{SCHEME}{path}"


def check_url(url: str) -> None:
    """Raise ValueError if no file has the name in a LEDGER_URL of this level."""
    name = url.removeprefix(SCHEME)
    if not name or set(name) & set("?#\0"):
        raise ValueError(f"must be {' or '.join(FORMS)}, without ?, # or NUL")


def path_of(url: str) -> Path:
    """Return the file that a LEDGER_URL names, with a symbolic link resolved."""
    path = Path(url.removeprefix(SCHEME)).absolute()
    # SQLite follows a link and keeps its log next to the target, so the lock and the key must be there too.
    return Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114  (never raises)


def secrets_of(url: str, key_file: Path | None) -> tuple[Path, ...]:
    """Return the paths of the database and of its key, which may not exist yet."""
    place = Place(path_of(url), key_file)
    return place.path, place.key_file


def check_directory(url: str) -> None:
    """Raise ValueError if the directory of the file is missing or is not a directory."""
    place = path_of(url).parent
    try:
        mode = place.stat().st_mode
        reason = None if stat.S_ISDIR(mode) else os.strerror(errno.ENOTDIR)
    except OSError as error:
        reason = error.strerror
    if reason:
        # Name only what exists: a secret can be pasted into the wrong setting.
        while not os.path.isdir(place):  # noqa: PTH112  (never raises)
            place = place.parent
        raise ValueError(f"names a file in a directory that cannot be used: {reason} (below {place})")


@contextmanager
def _links_explained(url: str) -> Iterator[None]:
    """Add to a LedgerFault that files beside a symbolic link, instead of its target, are not found."""
    try:
        yield
    except LedgerFault as fault:
        link, path = Path(url.removeprefix(SCHEME)).absolute(), path_of(url)
        if link.is_symlink() and any(link.parent.glob(f"{escape(link.name)}?*")):
            text = f"the ledger's other files must be in {path.parent} and begin with {path.name}"
            fault.args = (f"{fault} ({link} is a symbolic link to {path}: {text})",)
        raise


def open_sqlite(
    url: str,
    key_file: Path | None,
    /,
    *,
    random_bytes: RandomBytes,
    create: bool,
    report: Callable[[str], None],
    on_create: Callable[[], None],
    **_limits: object,
) -> tuple[SqliteLedger, Vault]:
    """Open a ledger, as `open_ledger` describes it."""
    place = Place(path := path_of(url), key_file)
    if key_file is not None:
        read_key_file(key_file)
    if not create and not path.exists():
        raise LedgerFault(f"there is no ledger {path}")
    place.must_be_writable()
    with _links_explained(url), lock_of(path, create=create) as lock:
        with file_errors_as_faults(path, "opened"):
            lock.acquire(LOCK_TIMEOUT_S)
            is_new = place.examine(is_alone=lock.is_alone) is not None
            if is_new and not create:
                raise LedgerFault(f"there is no ledger {path}: its file is empty")
        ledger, vault = open_place(place, lock, random_bytes, report)
        lock.share()
    if is_new:
        on_create()
    return ledger, vault


def fault_of(url: str, key_file: Path | None) -> str | None:
    """Return why `open_sqlite` would refuse a ledger now, or None; write nothing."""
    path = path_of(url)
    try:
        with _links_explained(url), file_errors_as_faults(path, "opened"):
            (place := Place(path, key_file)).must_be_writable()
            place.examine(is_alone=is_unused(path))
    except LedgerFault as fault:
        return str(fault)
    except LedgerUnavailable:  # another program holds it for a moment
        return None
    return None
