"""The marker file of a ledger's key: the ledgers that use the key, and the last fencing token of each.

An older copy of a database looks like the database itself, and a missing one leaves no trace. The marker is
a separate file, next to the key, so that the two can be compared when the ledger is opened. It is written
when a ledger is opened and closed, and soon after its token changed. A marker that is behind its database
is normal; a database that is behind its marker is an older copy.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clients.alipayhk.regular_file import open_regular

from . import LedgerFault
from .ownership import give_to_owner_of
from .vault import sync

EVERY_S: Final = 0.5
"""Minimum time between two writes; with the duration of a write, the marker is at most 1 s late."""
FILE_BYTES_MAX: Final = 1 << 20
LOCK_TIMEOUT_S: Final = 2.0
"""Timeout for the lock of the key; a write takes milliseconds."""
_ACCEPT: Final = "accept the present ledger with: alipayhk-gateway ledger restore"


@dataclass(frozen=True, slots=True)
class Entry:
    """The marker's record of one ledger."""

    token: int
    """The last fencing token that was written here; the database's own is the same or higher."""
    where: str
    """The path of the ledger when it was last opened."""


Entries = dict[str, Entry]
"""Entries by ledger id."""


class Marker:
    """The marker file of one key."""

    def __init__(self, key_file: Path) -> None:
        self.path = key_file.with_name(f"{key_file.name}.ledgers")
        self._key_file = key_file

    def read(self) -> Entries | None:
        """Return the entries, or None if the file is missing; raise LedgerFault if it cannot be read."""
        try:
            with open_regular(self.path) as file:
                return _entries_of(json.loads(file.read(FILE_BYTES_MAX)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerFault(
                f"{self.path} cannot be read ({error.strerror}): let this user read it, or move it away "
                f"and {_ACCEPT}"
            ) from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            raise LedgerFault(f"{self.path} is damaged: put it back, or {_ACCEPT}") from None

    def ids_at(self, where: str) -> list[str]:
        """Return the ids of the ledgers at a place; of a damaged marker none."""
        with suppress(LedgerFault):
            return [one for one, entry in (self.read() or {}).items() if entry.where == where]
        return []

    def can_be_written(self) -> bool:
        """Whether this process can write its directory."""
        return os.access(self.path.parent, os.W_OK | os.X_OK)

    def change(self, change: Callable[[Entries], Entries], *, must_write: bool = False) -> None:
        """Replace the entries under the key's lock, durably and atomically; raise OSError.

        With `must_write`, unchanged entries are written too, so that a full disk is noticed.
        """
        with self._locked():
            entries: Entries = {}
            with suppress(LedgerFault):  # a damaged one is replaced
                entries = self.read() or {}
            changed = change(dict(entries))
            if must_write or changed != entries or not self.path.exists():
                self._write(changed)

    def register(self, ledger_id: str, entry: Entry, *, replaces: str | None = None) -> str:
        """Enter a ledger as the only one at its place; return why that cannot be written, or nothing."""

        def begun(entries: Entries) -> Entries:
            others = {
                other_id: other
                for other_id, other in entries.items()
                if other.where != entry.where and other_id != replaces
            }
            return {**others, ledger_id: entry}

        try:
            self.change(begun)
        except OSError as error:
            return error.strerror or type(error).__name__
        return ""

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock out other ledgers of this key. A key that does not exist yet has none."""
        try:
            descriptor = os.open(self._key_file, os.O_RDONLY)
        except FileNotFoundError:
            yield
            return
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _write(self, entries: Entries) -> None:
        ledgers = {
            ledger_id: {"last_token": entry.token, "ledger": entry.where}
            for ledger_id, entry in sorted(entries.items())
        }
        unfinished = self.path.with_name(f"{self.path.name}.new")
        with suppress(FileNotFoundError):  # left by a process that was killed
            unfinished.unlink()
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        give_to_owner_of(self.path, descriptor)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps({"ledgers": ledgers}, indent=1).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path)
        sync(self.path.parent)


def _lock(descriptor: int) -> None:
    """Lock a file for this process; raise TimeoutError if another one, perhaps a stopped one, keeps it."""
    give_up_s = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up_s:
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps the lock of the key") from None
            time.sleep(0.01)


def _entries_of(said: Mapping[str, Any]) -> Entries:
    return {
        str(ledger_id): Entry(int(entry["last_token"]), str(entry["ledger"]))
        for ledger_id, entry in said["ledgers"].items()
    }


class MarkerKeeper:
    """Keeps the marker's entry of one open ledger up to date, in its own thread.

    A failed write stops nothing, because a marker may be behind its database. `report` is called with the
    cause of the first of several failures.
    """

    def __init__(
        self,
        marker: Marker,
        ledger_id: str,
        entry: Entry,
        report: Callable[[str], None],
        former_ids: Collection[str] = (),
    ) -> None:
        """Start; the entries of `former_ids` are removed, so that these ledgers cannot come back."""
        self._marker = marker
        self._former_ids = former_ids
        self._ledger_id = ledger_id
        self._entry = entry
        self._report = report
        self._is_failing = False
        self._moved = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger marker", daemon=True)
        with suppress(OSError):  # reported when the token changes
            self._save()
        self._thread.start()

    def moved(self, token: int) -> None:
        """Write a committed token soon; tokens need not come in their order."""
        self._entry = Entry(max(token, self._entry.token), self._entry.where)
        self._moved.set()

    def recognizes(self, ids: Collection[str], token: int) -> bool:
        """Return whether a database can have its ledger, by all its ids and its last token."""
        return self._ledger_id in ids and token >= self._entry.token

    def close(self) -> None:
        """Write the last token."""
        self._closing.set()
        self._moved.set()
        self._thread.join()
        self._try_to_save()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._moved.wait()
            self._moved.clear()
            if not self._closing.is_set():
                self._try_to_save()
                self._closing.wait(EVERY_S)

    def _try_to_save(self) -> None:
        try:
            self._save()
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                self._report(errno.errorcode.get(error.errno or 0, type(error).__name__))
            self._is_failing = True

    def _save(self) -> None:
        ledger_id, entry = self._ledger_id, self._entry

        def raised(entries: Entries) -> Entries:
            # Several workers write the same entry; the highest token is the latest.
            known = entries.get(ledger_id, entry)
            others = {one: entries[one] for one in entries if one not in self._former_ids}
            return {**others, ledger_id: Entry(max(known.token, entry.token), entry.where)}

        self._marker.change(raised)
