"""The write lock of a ledger: the processes of one host write one after the other, in order of arrival.

SQLite's own lock is not fair: a process that waits for it sleeps and tries again, and a process that writes
without a pause takes it first each time. This lock consists of byte-range locks on the ledger's lock file.
They belong to an open file description, so that the kernel releases them when a process exits for any
reason (https://man7.org/linux/man-pages/man2/fcntl.2.html, "Open file description locks").

If no process holds or wants the lock, one call locks all bytes up to the present time of the system's
monotonic clock. Else a process that wants to write locks the byte whose offset is that time: its
ticket. It waits until every byte below its ticket is free, then takes byte 0, which only the process that
writes holds, and gives up its ticket. If a process was stopped while it waits, the others ignore its ticket
after QUEUE_TIMEOUT_S. Byte 0 is never ignored, so transactions and checkpoints of two processes do not
overlap. SQLite before 3.51.3 can damage the file if they do (https://sqlite.org/wal.html, "The WAL-Reset
Bug").
"""

from __future__ import annotations

import errno
import fcntl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .. import LedgerUnavailable

QUEUE_TIMEOUT_S: Final = 3.0
"""How long to wait for the processes that came first: several commits of each on a slow disk."""
_POLL_S: Final = 0.001
_FLOCK: Final = "hhqqi0q"
"""Linux' struct flock: type, whence, start, length, process id."""
_WRITING: Final = 0
_FIRST_TICKET: Final = 1


class WriteLock:
    """One process's write lock, on its own descriptor of the lock file; used by one thread."""

    def __init__(self, descriptor: int, timeout_s: float = QUEUE_TIMEOUT_S) -> None:
        self._descriptor = descriptor
        self._timeout_s = timeout_s
        self._ignored_below = _FIRST_TICKET
        """Tickets below this one belong to processes that did not write in time."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock inside the block; raise LedgerUnavailable if another process keeps it."""
        try:
            if not self._acquired():
                raise LedgerUnavailable("another process keeps the ledger's write lock")
            yield
        finally:
            self._set(fcntl.F_UNLCK, 0, 0)

    def _acquired(self) -> bool:
        ticket = time.monotonic_ns()
        if self._set(fcntl.F_WRLCK, _WRITING, ticket):
            self._set(fcntl.F_UNLCK, _FIRST_TICKET, 0)
            return True
        while not self._set(fcntl.F_WRLCK, ticket, 1):
            ticket = time.monotonic_ns()
        # A shared lock, so that processes that wait do not exclude each other.
        if not self._waited_for(fcntl.F_RDLCK, self._ignored_below, ticket - self._ignored_below):
            self._ignored_below = ticket
        if not self._waited_for(fcntl.F_WRLCK, _WRITING, 1):
            return False
        self._set(fcntl.F_UNLCK, _FIRST_TICKET, 0)  # those behind now wait for the next ticket
        return True

    def _waited_for(self, kind: int, start: int, length: int) -> bool:
        """Lock bytes; return False if another process excluded it for the whole timeout."""
        deadline_s = time.monotonic() + self._timeout_s
        while not self._set(kind, start, length):
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_POLL_S)
        return True

    def _set(self, kind: int, start: int, length: int) -> bool:
        """Lock or unlock bytes; return False if another process excludes it. Length 0 means to the end."""
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, 0, start, length, 0))
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                return False
            name = errno.errorcode.get(error.errno or 0, "")
            raise LedgerUnavailable(f"the ledger's lock file cannot be locked: {name}") from None
        return True
