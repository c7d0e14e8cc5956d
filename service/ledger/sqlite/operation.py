"""One operation of the writer's thread, and how operations fail."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .. import LedgerUnavailable
from ..errors import LedgerBusy
from .bulk import Work
from .file import is_busy, name_of
from .rows import ToClaim, ToRecord

_DISK_FULL: Final = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})
"""Errors of a file that cannot grow; SQLITE_IOERR_WRITE is also that of an exhausted quota."""
ERRORS_OF_ONE_OPERATION: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""Errors that one operation causes, and not the file."""


class DiskFull(LedgerUnavailable):
    """The transaction was rolled back because a file could not grow."""


@dataclass(slots=True, eq=False)
class Operation:
    """Work for one transaction, and the future of its caller."""

    work: Work
    future: asyncio.Future[Any]
    writes: bool = True
    on_abandoned: Callable[[Any], None] | None = None
    """Called with a result that no caller awaits any more. If set, a cancelled operation may be skipped."""
    result: Any = None
    failure: Exception | None = None

    @property
    def claims(self) -> bool:
        """Whether it is refused when the disk is full."""
        return isinstance(self.work, ToClaim)

    @property
    def may_be_late(self) -> bool:
        """Whether it may become durable up to SYNC_S after its commit."""
        return isinstance(self.work, ToRecord) and self.work.ending.may_be_late

    @property
    def is_abandoned(self) -> bool:
        """Whether its caller was cancelled, so that it must not run."""
        return self.on_abandoned is not None and self.future.cancelled()

    def complete(self) -> None:
        """Set the caller's future; called in the event loop's thread."""
        if self.future.done():
            if self.on_abandoned is not None and self.failure is None:
                self.on_abandoned(self.result)
        elif self.failure is not None:
            self.future.set_exception(self.failure)
        else:
            self.future.set_result(self.result)


def failure_of(error: sqlite3.Error) -> LedgerUnavailable:
    """Return the exception for the operations of a transaction that failed."""
    text = f"the ledger's file cannot be used: {name_of(error)}"
    if is_busy(error):
        return LedgerBusy(text)
    return DiskFull(text) if name_of(error) in _DISK_FULL else LedgerUnavailable(text)


def fail(
    batch: list[Operation], failure: Exception, which: Callable[[Operation], bool] = lambda _: True
) -> list[Operation]:
    """Fail some operations; return the others."""
    for operation in batch:
        if which(operation):
            operation.failure = failure
    return [operation for operation in batch if not which(operation)]


def consume_failure(done: asyncio.Future[Any]) -> None:
    """Retrieve a failure, so that asyncio does not log it."""
    if not done.cancelled():
        done.exception()
