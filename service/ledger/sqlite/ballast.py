"""Reserve disk space for outcomes, in a file next to the database.

A request whose outcome does not fit on the disk would be in doubt after a crash. So a ledger allocates a
file of fixed size before it grants the first claim. When the disk is full, the file is shortened step by
step until the waiting outcomes fit, and claims are refused until it has its size again. All processes that
use the ledger share the file; the last one that closes the ledger removes it.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from .. import LedgerUnavailable
from ..ownership import give_to_owner_of

BYTES: Final = 16 << 20
"""An outcome changes about 6 pages of 4 KiB: enough for 512 requests in flight, and a checkpoint."""
STEP_BYTES: Final = 1 << 20
"""How much is given up at a time: another program may take the space before the ledger does."""
SPARE_BYTES: Final = 4 << 20
"""The free space that must remain after the file was allocated: the database needs it to grow."""
CHECK_EVERY_S: Final = 0.1
"""How long a successful check holds. Another process may have given the file up since then."""


def ballast_path(path: Path) -> Path:
    """Return the name of a database's ballast file."""
    return path.with_name(f"{path.name}.ballast")


class Ballast:
    """The ballast file of one database."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = ballast_path(database)
        self._is_impossible = False
        self._checked_s = -CHECK_EVERY_S

    def check(self) -> None:
        """Allocate the file if it was given up or is missing; raise LedgerUnavailable if it cannot fit."""
        if time.monotonic() - self._checked_s < CHECK_EVERY_S:
            return
        if self._is_impossible or self._size() >= BYTES or self._allocate():
            self._checked_s = time.monotonic()
            return
        needed = (BYTES + SPARE_BYTES) >> 20
        raise LedgerUnavailable(
            f"the disk of the ledger {self._database} is full: free {needed} MiB, "
            "until then no request is sent"
        )

    def give_up(self) -> bool:
        """Free some of its space for the database; return whether there was any."""
        self._checked_s = -CHECK_EVERY_S
        size = self._size()
        if size == 0:
            return False
        try:
            os.truncate(self._path, max(size - STEP_BYTES, 0))
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """Delete the file."""
        with suppress(OSError):
            self._path.unlink()

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size  # noqa: PTH116  (faster)
        except OSError:
            return 0

    def _allocate(self) -> bool:
        """Allocate its blocks; return whether they fit. If the file cannot be written, do without it."""
        try:
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < BYTES - self._size() + SPARE_BYTES:
                return False
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                give_to_owner_of(self._database, descriptor)
                os.posix_fallocate(descriptor, 0, BYTES)
            except BaseException:
                os.ftruncate(descriptor, 0)
                raise
            finally:
                os.close(descriptor)
        except OSError as error:
            self._is_impossible = error.errno not in {errno.ENOSPC, errno.EDQUOT}
            return self._is_impossible
        return True
