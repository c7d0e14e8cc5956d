"""The lock that shows which processes use a ledger, on a separate file next to the database.

Every process that has the ledger open holds the lock shared. A process that holds it exclusively is the
only user: it may create, replace or inspect the file. The last process to close the ledger takes the lock
exclusively to mark the file as closed cleanly. The kernel releases the lock when a process exits for any
reason.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from . import LedgerUnavailable
from .ownership import give_to_owner_of

_POLL_S: Final = 0.02


def lock_path(ledger: Path) -> Path:
    """Return the name of a ledger's lock file."""
    return ledger.with_name(f"{ledger.name}.lock")


class UsageLock:
    """One process's lock on a ledger, held until `release`; raise OSError if its file cannot be created."""

    def __init__(self, ledger: Path) -> None:
        self.is_alone = False
        """Whether no other process uses the ledger: the lock is exclusive."""
        self._ledger = ledger
        self._descriptor = _opened(ledger)

    @property
    def descriptor(self) -> int:
        """Return the descriptor of the lock file, for locks of other kinds."""
        return self._descriptor

    def acquire(self, timeout_s: float) -> None:
        """Lock exclusively if no other process uses the ledger, else shared; raise LedgerUnavailable."""
        deadline_s = time.monotonic() + timeout_s
        while not (self.try_alone() or self._try(fcntl.LOCK_SH)):
            if time.monotonic() > deadline_s:
                self.release()
                raise LedgerUnavailable(
                    f"the ledger {self._ledger} is being created, restored or opened by another process"
                )
            time.sleep(_POLL_S)

    def acquire_alone(self, timeout_s: float) -> None:
        """Lock exclusively; raise LedgerUnavailable if another process still uses the ledger."""
        deadline_s = time.monotonic() + timeout_s
        while not self.try_alone():
            if time.monotonic() > deadline_s:
                self.release()
                raise LedgerUnavailable(
                    f"the ledger {self._ledger} is in use by another process: stop the gateway first"
                )
            time.sleep(_POLL_S)

    def try_alone(self) -> bool:
        """Lock exclusively and return True, or return False; the shared lock may be lost then."""
        self.is_alone = self._try(fcntl.LOCK_EX)
        return self.is_alone

    def share(self) -> None:
        """Hold the lock shared, so that other processes can use the ledger."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        self.is_alone = False

    def release(self) -> None:
        """Stop using the ledger."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _opened(ledger: Path) -> int:
    """Open a ledger's lock file, or create it; return its descriptor."""
    path = lock_path(ledger)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR)
    give_to_owner_of(ledger, descriptor)
    return descriptor


def is_unused(ledger: Path) -> bool:
    """Whether no process uses the ledger now; writes nothing."""
    with suppress(OSError):
        descriptor = os.open(lock_path(ledger), os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
    return True
