"""Update the metrics that show a state which no event of this process sets."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from clients.alipayhk.api import Api

from ..delivery.delivery import Delivery
from ..ledger import Ledger, LedgerUnavailable
from ..ledger.lease import Clock
from ..telemetry.logs import log, stack_of
from ..telemetry.metrics import Metrics

LOOK_EVERY_S: Final = 1.0
COUNT_EVERY_S: Final = 15.0
COUNT_SHARE: Final = 0.01
"""The greatest share of the time that counting takes: a slow ledger is counted less often."""
LOCK: Final = "counting.lock"


@asynccontextmanager
async def running(*jobs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run jobs, which never end, until the block is left; log one that fails."""
    tasks = [asyncio.create_task(job) for job in jobs]
    for task in tasks:
        task.add_done_callback(_log_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _log_failure(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("periodic job failed", error_class=type(error).__name__, stack=stack_of(error))


async def show_delivery(delivery: Delivery, metrics: Metrics) -> None:
    """Show that this worker serves, which breakers are open, and how many requests are in progress."""
    metrics.workers.set(1)
    while True:
        for api, is_open in delivery.breakers_open.items():
            metrics.breaker_open.labels(api).set(is_open)
        metrics.requests_in_progress.set(delivery.in_progress)
        await asyncio.sleep(LOOK_EVERY_S)


class Turn:
    """The right to count, which one of the workers that share a directory holds until it exits."""

    def __init__(self, directory: Path | None) -> None:
        """Without a directory, there are no other workers."""
        self._directory = directory
        self._file: int | None = None

    def take(self) -> bool:
        """Return whether this worker counts; all of them do if the directory cannot be written."""
        if self._directory is None or self._file is not None:
            return True
        try:
            file = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True


async def show_in_doubt(ledger: Ledger, metrics: Metrics, turn: Turn, clock: Clock | None = None) -> None:
    """Show how many requests are in doubt, and the age of the oldest one."""
    clock = clock or Clock()
    next_s = 0.0
    while True:
        began_s = time.monotonic()
        if began_s >= next_s and turn.take():
            with suppress(LedgerUnavailable):  # `alipayhk_ledger_usable` shows that
                await _count(ledger, metrics, clock)
            took_s = time.monotonic() - began_s
            next_s = began_s + max(COUNT_EVERY_S, took_s / COUNT_SHARE)
        await asyncio.sleep(LOOK_EVERY_S)


async def _count(ledger: Ledger, metrics: Metrics, clock: Clock) -> None:
    found = await ledger.in_doubt(clock.now_ms())
    counts = {one.api: one.requests for one in found}
    for api in Api:
        metrics.ledger_in_doubt.labels(api).set(counts.get(api, 0))
    now_ms = clock.now_ms()
    oldest_ms = min((one.oldest_ms for one in found), default=now_ms)
    metrics.ledger_in_doubt_oldest.set(max(now_ms - oldest_ms, 0) / 1000)
