"""The ledger of a running gateway: opened at the start, maintained every second, closed at the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from ..config.environment import metrics_directory
from ..config.files import path_of
from ..config.settings import Settings
from ..delivery.clock_skew import ClockSkew
from ..delivery.ledger_monitor import LedgerMonitor
from ..delivery.ledger_session import LedgerSession
from ..delivery.pending_writes import FLUSH_TIMEOUT_S
from ..ledger import Ledger, LedgerUnavailable
from ..ledger.lease import LEASE_MARGIN_S
from ..ledger.levels import level_of, place_of
from ..ledger.opening import open_ledger
from ..ledger.vault import Vault
from ..telemetry.logs import log, stack_of
from ..telemetry.metrics import Metrics
from .gauges import Turn, running, show_in_doubt

FLUSH_EVERY_S: Final = 1.0
LEDGER_CLOSE_S: Final = FLUSH_TIMEOUT_S + 3.0
DROP_EVERY: Final = 60
"""Old results are dropped once in so many rounds of `maintain`."""


@asynccontextmanager
async def ledger_session(
    settings: Settings, metrics: Metrics, skew: ClockSkew
) -> AsyncIterator[LedgerSession]:
    """Open the ledger, maintain it, and close it after everything else."""
    ledger, vault = _opened_ledger(settings)
    monitor = LedgerMonitor(ledger, metrics)
    session = LedgerSession(
        monitor,
        vault,
        metrics,
        lease_s=settings.upstream_timeout_s + LEASE_MARGIN_S,
        biz_time_ahead_s=settings.biz_time_ahead_s,
        records=level_of(settings.ledger_url).records,
        idempotent_without=settings.sync_linkage_without_ledger,
        on_late_claim=lambda: monitor.failed("the claim took too long"),
    )
    retention_s = settings.ledger_retention_h * 3600.0
    jobs = (
        maintain(session, monitor, skew, retention_s),
        show_in_doubt(monitor, metrics, Turn(metrics_directory())),
    )
    try:
        async with running(*jobs):
            yield session
    finally:
        await _close(session)


async def _close(session: LedgerSession) -> None:
    """Close the ledger, or give up if its disk hangs. A thread still waits then, and `serve` ends it."""
    try:
        async with asyncio.timeout(LEDGER_CLOSE_S):
            await session.close()
    except TimeoutError:
        log.error("ledger not closed in time")


def _opened_ledger(settings: Settings) -> tuple[Ledger, Vault]:
    """Open the ledger and log its path: a wrong one does not know the earlier requests."""
    level, where = level_of(settings.ledger_url), place_of(settings.ledger_url)
    ledger, vault = open_ledger(
        settings.ledger_url,
        path_of(settings.ledger_key_file),
        random_bytes=os.urandom,
        report=_marker_unwritable,
        on_create=lambda: log.warning("new ledger created without earlier requests", where=where),
        pool_max=settings.ledger_pool_max,
        timeout_s=settings.ledger_timeout_s,
    )
    key_id = {"key_id": vault.key_id} if level.outlives_process else {}
    log.info("ledger opened", where=where, **key_id)
    return ledger, vault


def _marker_unwritable(cause: str) -> None:
    """Log that an older copy of the ledger would not be recognized."""
    log.warning("ledger marker not writable", cause=cause)


async def maintain(
    session: LedgerSession, monitor: LedgerMonitor, skew: ClockSkew, retention_s: float
) -> None:
    """Flush pending writes and probe the ledger each second; drop old results each minute."""
    rounds = DROP_EVERY
    while True:
        skew.watch()
        try:
            await session.flush()
            await monitor.probe()
            if rounds >= DROP_EVERY and skew.agrees:
                await session.drop(older_than_s=retention_s)
                rounds = 0
            monitor.worked()
        except LedgerUnavailable:
            pass  # the monitor has noted it
        except Exception as error:  # noqa: BLE001  (the loop must continue: pending writes depend on it)
            log.error("ledger maintenance failed", error_class=type(error).__name__, stack=stack_of(error))
        rounds += 1
        await asyncio.sleep(FLUSH_EVERY_S)
