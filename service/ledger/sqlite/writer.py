"""The writer thread: operations that arrive during a commit share the next one."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from .. import LedgerFault, LedgerUnavailable
from .bulk import Work, run_all
from .file import OPEN_TIMEOUT_S, LedgerFile, is_busy
from .operation import ERRORS_OF_ONE_OPERATION, DiskFull, Operation, consume_failure, fail, failure_of
from .tables import Tables

BATCH_MAX: Final = 256
SYNC_S: Final = 0.05
"""How long an outcome that may be late can wait for a commit that makes it durable."""
GATHER_S: Final = 0.002
"""How long an operation waits for others to share its commit with, while the event loop is busy."""
IDLE_S: Final = 0.0001
"""A pass of the event loop that takes less has had nothing to do."""


class Writer:
    """Runs operations of the event loop in its own thread, and completes them after their commit."""

    def __init__(
        self, file: LedgerFile, clock_ms: Callable[[], int], granted: Callable[[int], None] = lambda _: None
    ) -> None:
        """Open the file; the writer's thread calls `granted` with the last token of each commit."""
        self._file = file
        self._granted = granted
        self._tables_of = partial(Tables, key_id=file.mark.key_id, clock_ms=clock_ms)
        self._tables = self._tables_of(file.open(timeout_s=OPEN_TIMEOUT_S))
        self._must_reconnect = False
        self._queue: SimpleQueue[Operation | None] = SimpleQueue()
        self._gathered: list[Operation] = []
        self._gathering_since_s = self._passed_s = 0.0
        self._closed = False
        self._is_synced = True
        """Whether the last commit is durable. The writer's thread sets it."""
        self._sync_is_due = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def submit(
        self,
        work: Work,
        *,
        writes: bool = True,
        on_abandoned: Callable[[Any], None] | None = None,
    ) -> asyncio.Future[Any]:
        """Queue an operation; its future gets the result when it is committed."""
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if not self._gathered:
            self._gathering_since_s = self._passed_s = time.monotonic()
            loop.call_soon(self._gather, loop)
        self._gathered.append(Operation(work, future, writes, on_abandoned))
        return future

    def _gather(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand the operations to the thread when the event loop is idle, or when GATHER_S is over.

        A busy loop is about to submit more of them, and it and the thread delay each other.
        """
        now_s = time.monotonic()
        is_busy = now_s - self._passed_s > IDLE_S
        if is_busy and now_s - self._gathering_since_s < GATHER_S and len(self._gathered) < BATCH_MAX:
            self._passed_s = now_s
            loop.call_soon(self._gather, loop)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        for operation in self._gathered:
            self._queue.put(operation)
        self._gathered.clear()

    async def close(self) -> None:
        """Run the queued operations, then stop the thread."""
        if not self._closed:
            self._hand_over()
            if not self._is_synced or not self._queue.empty():
                self._queue.put(Operation(Tables.touch, asyncio.get_running_loop().create_future()))
            self._closed = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _complete(self, batch: list[Operation]) -> None:
        for operation in batch:
            operation.complete()
        if not self._is_synced and not self._sync_is_due:
            self._sync_is_due = True
            asyncio.get_running_loop().call_later(SYNC_S, self._sync)

    def _sync(self) -> None:
        """Make what is committed durable, unless a later commit has done so."""
        self._sync_is_due = False
        if not self._is_synced:
            with suppress(LedgerUnavailable):
                self.submit(Tables.touch).add_done_callback(consume_failure)

    def _run(self) -> None:
        running = True
        while running:
            batch: list[Operation] = []
            running = self._collect(batch, self._queue.get())
            if not batch:
                continue
            loop = batch[0].future.get_loop()
            if self._must_reconnect or any(operation.writes for operation in batch):
                running = self._run_in_turn(batch) and running
            else:
                self._run_batch(batch)
            # RuntimeError: the loop is closed, so no caller waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._complete, batch)
        self._file.close(self._tables.connection)

    def _collect(self, batch: list[Operation], operation: Operation | None) -> bool:
        """Add an operation and those behind it to a batch; return whether more may follow."""
        queue = self._queue
        while operation is not None:
            if not operation.is_abandoned:
                batch.append(operation)
            if queue.empty() or len(batch) >= BATCH_MAX:
                return True
            operation = queue.get()
        return False

    def _run_in_turn(self, batch: list[Operation]) -> bool:
        """Wait for the write lock; run a batch with what arrived meanwhile; return as `_collect` does."""
        failure: LedgerUnavailable | None = None
        running = True
        with ExitStack() as stack:
            try:
                stack.enter_context(self._file.writing())
            except LedgerUnavailable as error:
                failure = error
            batch[:] = [operation for operation in batch if not operation.is_abandoned]
            if len(batch) < BATCH_MAX and not self._queue.empty():
                running = self._collect(batch, self._queue.get())
            if failure is None and batch:
                self._run_batch(batch)
        for operation in batch if failure is not None else ():
            operation.failure = failure
        return running

    def _run_batch(self, batch: list[Operation]) -> None:
        """Run a batch in one transaction. If one operation causes an error, run each in its own.

        On a full disk, refuse the claims and give up ballast until the others fit.
        """
        try:
            if batch := self._without_claims_on_full_disk(batch):
                self._commit_batch(batch)
        except DiskFull as failure:
            rest = fail(batch, failure, lambda operation: operation.claims)
            if rest and self._file.ballast.give_up():
                self._run_batch(rest)
            else:
                fail(rest, failure)
        except LedgerUnavailable as failure:
            fail(batch, failure)
        except Exception as failure:  # noqa: BLE001  (the caller gets it)
            if len(batch) == 1:
                batch[0].failure = failure
                return
            for operation in batch:
                self._run_batch([operation])

    def _without_claims_on_full_disk(self, batch: list[Operation]) -> list[Operation]:
        if any(operation.claims for operation in batch):
            try:
                self._file.ballast.check()
            except LedgerUnavailable as failure:
                return fail(batch, failure, lambda operation: operation.claims)
        return batch

    def _commit_batch(self, batch: list[Operation]) -> None:
        try:
            self._reconnect()
            self._file.must_be_the_same()
            writes = any(operation.writes for operation in batch)
            if writes:
                self._file.dirty_flag.set(self._tables.connection)
            durable = not all(operation.may_be_late for operation in batch if operation.writes)
            claims = sum(operation.claims for operation in batch)
            self._tables.begin(writes=writes, durable=durable, claims=claims)
            results = run_all(self._tables, [operation.work for operation in batch])
            for operation, result in zip(batch, results, strict=True):
                operation.result = result
            if self._tables.commit():
                self._is_synced = durable
            if self._tables.granted_token is not None:
                self._granted(self._tables.granted_token)
            # If the file was deleted or replaced, the commit went to an unlinked inode and is lost.
            self._file.must_be_the_same()
        except LedgerFault:
            raise LedgerUnavailable("the ledger's file is no longer this ledger") from None
        except sqlite3.Error as error:
            self._roll_back()
            if isinstance(error, ERRORS_OF_ONE_OPERATION) and len(batch) > 1:
                raise
            self._must_reconnect |= not is_busy(error)
            raise failure_of(error) from None
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._tables.connection.in_transaction:
                self._tables.connection.execute("ROLLBACK")

    def _reconnect(self) -> None:
        """Open a new connection if the last error was one of the file."""
        if not self._must_reconnect:
            return
        # Close the old connection last: while it is open, no other file can get its inode.
        tables, self._tables = self._tables, self._tables_of(self._file.open())
        tables.connection.close()
        self._must_reconnect = False
