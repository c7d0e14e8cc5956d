"""The one thread that writes: operations that come while a commit is under way share the next one."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final

from .. import LedgerFault, LedgerUnavailable
from .file import OPEN_TIMEOUT_S, LedgerFile, is_busy, name_of
from .tables import Tables

BATCH_MAX: Final = 256
SWITCH_INTERVAL_S: Final = 0.0001
"""How long the event loop may keep Python's lock while the writer waits for it.

The writer gives the lock away with every statement. A busy loop gives it away too, each time that it polls,
but takes it again before the writer has woken up; and each time the writer's patience, 5 ms by default,
begins anew. Under load a commit that many share then took up to a second.
"""
_ERRORS_OF_ONE_OPERATION: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""What is one operation's fault, and not the file's."""


@dataclass(slots=True, eq=False)
class Operation:
    """Something to be done in a transaction, and who waits for it."""

    work: Callable[[Tables], Any]
    future: asyncio.Future[Any]
    writes: bool = True
    on_abandoned: Callable[[Any], None] | None = None
    """What to do with a result that nobody waits for any more; with it, it need not be begun then."""
    result: Any = None
    failure: Exception | None = None

    def answer(self) -> None:
        """Tell the waiter, in its own thread."""
        if self.future.done():
            if self.on_abandoned is not None and self.failure is None:
                self.on_abandoned(self.result)
        elif self.failure is not None:
            self.future.set_exception(self.failure)
        else:
            self.future.set_result(self.result)


class Writer:
    """Takes operations from the event loop, and answers them after their commit."""

    def __init__(self, file: LedgerFile, granted: Callable[[int], None] = lambda _: None) -> None:
        """Open the file; `granted` is called in the writer's thread with the last token of a commit."""
        self._file = file
        self._granted = granted
        self._tables = Tables(file.open(timeout_s=OPEN_TIMEOUT_S), file.mark.key_id)
        self._must_reconnect = False
        self._queue: SimpleQueue[Operation | None] = SimpleQueue()
        self._closed = False
        sys.setswitchinterval(min(SWITCH_INTERVAL_S, sys.getswitchinterval()))
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def submit(
        self,
        work: Callable[[Tables], Any],
        *,
        writes: bool = True,
        on_abandoned: Callable[[Any], None] | None = None,
    ) -> asyncio.Future[Any]:
        """Queue an operation; the future has its result once it is durable."""
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.put(Operation(work, future, writes, on_abandoned))
        return future

    async def close(self) -> None:
        """Finish what is queued, then end the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        running = True
        while running:
            batch, running = self._take()
            if batch:
                self._run_batch(batch)
                # The loop may be gone, and then nobody waits.
                with suppress(RuntimeError):
                    batch[0].future.get_loop().call_soon_threadsafe(_answer, batch)
        self._file.close(self._tables.connection)

    def _take(self) -> tuple[list[Operation], bool]:
        """Wait for one operation, and take with it what has queued up; tell whether more may come."""
        batch: list[Operation] = []
        queue = self._queue
        operation = queue.get()
        while operation is not None:
            if operation.on_abandoned is None or not operation.future.cancelled():
                batch.append(operation)
            if queue.empty() or len(batch) >= BATCH_MAX:
                return batch, True
            operation = queue.get()
        return batch, False

    def _run_batch(self, batch: list[Operation]) -> None:
        """Do a batch in one transaction; where one of it fails by its own fault, each in its own."""
        try:
            self._commit_batch(batch)
        except LedgerUnavailable as failure:
            for operation in batch:
                operation.failure = failure
        except Exception as failure:  # noqa: BLE001  (it goes to whoever waits)
            if len(batch) == 1:
                batch[0].failure = failure
                return
            for operation in batch:
                self._run_batch([operation])

    def _commit_batch(self, batch: list[Operation]) -> None:
        try:
            self._reconnect()
            self._file.must_be_the_same()
            writes = any(operation.writes for operation in batch)
            if writes:
                self._file.dirty_flag.set(self._tables.connection)
            self._tables.begin(writes=writes)
            for operation in batch:
                operation.result = operation.work(self._tables)
            self._tables.commit()
            if self._tables.granted_token is not None:
                self._granted(self._tables.granted_token)
            # What was committed to a file that is gone is gone.
            self._file.must_be_the_same()
        except LedgerFault:
            raise LedgerUnavailable("the ledger's file is not the ledger that it was") from None
        except sqlite3.Error as error:
            self._roll_back()
            if isinstance(error, _ERRORS_OF_ONE_OPERATION) and len(batch) > 1:
                raise
            self._must_reconnect |= not is_busy(error)
            raise LedgerUnavailable(f"the ledger's file cannot be used: {name_of(error)}") from None
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._tables.connection.in_transaction:
                self._tables.connection.execute("ROLLBACK")

    def _reconnect(self) -> None:
        """Connect anew after trouble."""
        if not self._must_reconnect:
            return
        # The old connection is closed after the new one is open: until then no other file gets its inode.
        tables, self._tables = self._tables, Tables(self._file.open(), self._file.mark.key_id)
        tables.connection.close()
        self._must_reconnect = False


def _answer(batch: list[Operation]) -> None:
    for operation in batch:
        operation.answer()
