"""The gateway as one process: everything put together, run until a signal, taken apart in order."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

from clients.alipayhk.client import Client
from clients.alipayhk.wire.keys import fingerprint

from .config.settings import Settings
from .delivery.clock_skew import ClockSkew
from .delivery.delivery import Delivery, Limits
from .delivery.ledger_monitor import LedgerMonitor
from .delivery.ledger_session import LedgerSession
from .delivery.pending_writes import FLUSH_TIMEOUT_S
from .ledger import Ledger, LedgerUnavailable
from .ledger.lease import LEASE_MARGIN_S
from .ledger.levels import level_of
from .ledger.opening import is_new, open_ledger
from .ledger.vault import Vault
from .outcomes.result_codes import ResultCodes
from .server.admin import start_admin
from .server.linkage_service import LinkageService
from .server.server import ListenerStopped, Server
from .signals import stop_signals
from .telemetry.logs import log, stack_of
from .telemetry.metrics import Metrics
from .upstream import endpoints_of, transport_of

FLUSH_EVERY_S: Final = 1.0
LEDGER_CLOSE_S: Final = FLUSH_TIMEOUT_S + 2.0
DROP_EVERY: Final = 60
"""Old results are dropped once in so many rounds of `_maintain`."""


async def run(settings: Settings, *, shared: bool) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then drain; raise CannotListen or LedgerFault.

    If a listener stops by itself, finish the calls in progress and raise ListenerStopped.
    `shared` says that this is one of several workers, on ports that all of them listen on.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, stopping.set)
    if shared:
        _end_with_supervisor(stopping)
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        skew = ClockSkew(metrics, window_s=settings.response_time_window_s)
        session = await stack.enter_async_context(_ledger_session(settings, metrics, skew))
        transport = transport_of(settings)
        stack.push_async_callback(transport.close)
        endpoints = endpoints_of(settings)
        delivery = Delivery(
            Client(transport),
            session,
            metrics,
            apis=endpoints,
            codes=settings.result_codes_file or ResultCodes(),
            limits=Limits(settings.max_in_flight, settings.attempts_max),
            skew=skew,
        )
        server = Server(settings, LinkageService(endpoints, delivery), metrics, shared=shared)
        admin = await start_admin(settings.admin_listen, metrics, server.health, skew, shared=shared)
        stack.push_async_callback(admin.cleanup)
        address = await server.start()
        _log_start(settings, str(address))
        fault = await _until_stopping(stopping, server)
        log.info("stopping")
        await server.stop(listener_stopped=fault is not None)
    log.info("stopped")
    if fault:
        raise fault


async def _until_stopping(stopping: asyncio.Event, server: Server) -> ListenerStopped | None:
    """Wait for a signal, or for a listener that stops by itself, which is logged and returned."""
    signalled = asyncio.create_task(stopping.wait())
    watching = asyncio.create_task(server.listener_stopped())
    await asyncio.wait({signalled, watching}, return_when=asyncio.FIRST_COMPLETED)
    fault = watching.result() if watching.done() else None
    for task in (signalled, watching):
        task.cancel()
    await asyncio.wait({signalled, watching})
    if fault is None or stopping.is_set():
        return None
    cause = fault.__cause__ or fault
    log.error(
        "listener stopped by itself",
        where=fault.setting,
        error_class=type(cause).__name__,
        stack=stack_of(cause),
    )
    return fault


def _end_with_supervisor(stopping: asyncio.Event) -> None:
    """Stop when the supervisor is gone, whose end of the pipe that is this worker's input is closed then.

    Nobody would stop this worker otherwise, and it would serve beside those of the next supervisor.
    """
    loop, pipe = asyncio.get_running_loop(), sys.stdin.fileno()

    def gone() -> None:
        loop.remove_reader(pipe)
        stopping.set()

    loop.add_reader(pipe, gone)


@asynccontextmanager
async def _ledger_session(
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
        idempotent_without=settings.sync_linkage_without_ledger,
        on_late_claim=lambda: monitor.failed("the claim took too long"),
    )
    retention_s = settings.ledger_retention_h * 3600.0
    maintenance = asyncio.create_task(_maintain(session, monitor, skew, retention_s))
    try:
        yield session
    finally:
        maintenance.cancel()
        with suppress(asyncio.CancelledError):
            await maintenance
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
    level, created = level_of(settings.ledger_url), False
    with suppress(OSError):  # open_ledger reports the cause
        created = is_new(settings.ledger_url)
    ledger, vault = open_ledger(
        settings.ledger_url, settings.ledger_key_file, random_bytes=os.urandom, report=_marker_unwritable
    )
    where = str(level.file_of(settings.ledger_url) or level.name)
    if level.outlives_process:
        log.info("ledger opened", where=where, key_id=vault.key_id)
    else:
        log.info("ledger opened", where=where)
    if created:
        log.warning("new ledger created without earlier requests", where=where)
    return ledger, vault


def _marker_unwritable(cause: str) -> None:
    """Log that an older copy of the ledger would not be recognized."""
    log.warning("ledger marker not writable", cause=cause)


async def _maintain(
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


def _log_start(settings: Settings, listen: str) -> None:
    """Say what serves, and which keys: an operator who rotates them looks here first."""
    public = settings.signing_key_file.key.public_key()
    log.info("our signing key", version=settings.signing_key_version, sha256=fingerprint(public))
    for version, file in settings.public_key_files.items():
        log.info("AlipayHK's key", version=version, sha256=fingerprint(file.key))
    theirs = [fingerprint(file.key) for file in settings.public_key_files.values()]
    if fingerprint(public) in theirs:
        log.warning("PUBLIC_KEY_FILES holds our own public key where AlipayHK's is needed")
    log.info("serving", listen=listen)
