"""The gateway as one process: everything put together, run until a signal, taken apart in order."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

from clients.alipayhk.client import Client
from clients.alipayhk.keys import fingerprint

from .admin import start_admin
from .bookkeeping import LEASE_MARGIN_S, Bookkeeping
from .delivery import Delivery
from .ledger import LedgerUnavailable
from .ledger.opening import open_ledger
from .linkage import LinkageService
from .logs import log, stack_of
from .metrics import Metrics
from .result_codes import ResultCodes
from .server import Server
from .settings import Settings
from .upstream import endpoints_of, transport_of

HEAL_EVERY_S: Final = 1.0
DROP_EVERY: Final = 600
"""Healings between two times of forgetting what is old."""


async def run(settings: Settings, *, shared: bool) -> None:
    """Serve until SIGTERM or SIGINT, then drain; raise CannotListen or LedgerFault.

    `shared` says that this is one of several workers, on ports that all of them listen on.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        books = await stack.enter_async_context(_bookkeeping(settings, metrics))
        transport = transport_of(settings)
        stack.push_async_callback(transport.close)
        endpoints = endpoints_of(settings)
        delivery = Delivery(
            Client(transport),
            books,
            metrics,
            apis=endpoints,
            codes=settings.result_codes_file or ResultCodes(),
            max_in_flight=settings.max_in_flight,
        )
        server = Server(settings, LinkageService(endpoints, delivery), metrics, shared=shared)
        admin = await start_admin(settings.admin_listen, metrics, server.health, shared=shared)
        stack.push_async_callback(admin.cleanup)
        address = await server.start()
        _log_start(settings, str(address))
        await stopping.wait()
        log.info("stopping")
        await server.stop()
    log.info("stopped")


@asynccontextmanager
async def _bookkeeping(settings: Settings, metrics: Metrics) -> AsyncIterator[Bookkeeping]:
    """Open the ledger, keep it tidy, and close it when everything else is closed."""
    ledger, vault = open_ledger(settings.ledger_url, settings.ledger_key_file, random_bytes=os.urandom)
    books = Bookkeeping(
        ledger,
        vault,
        metrics,
        lease_s=settings.upstream_timeout_s + LEASE_MARGIN_S,
        biz_time_ahead_s=settings.biz_time_ahead_s,
        idempotent_without=settings.sync_linkage_without_ledger,
    )
    tidying = asyncio.create_task(_tidy(books, settings.ledger_retention_h * 3600.0))
    try:
        yield books
    finally:
        tidying.cancel()
        with suppress(asyncio.CancelledError):
            await tidying
        await books.close()


async def _tidy(books: Bookkeeping, retention_s: float) -> None:
    """Record what could not be recorded, and forget what is old enough."""
    rounds = 0
    while True:
        try:
            await books.heal()
            if rounds % DROP_EVERY == 0:
                await books.drop(older_than_s=retention_s)
        except LedgerUnavailable as error:
            log.warning("the ledger cannot be tidied", cause=str(error))
        except Exception as error:  # noqa: BLE001  (it must go on: what is in doubt waits for it)
            log.error("tidying failed", error_class=type(error).__name__, stack=stack_of(error))
        rounds += 1
        await asyncio.sleep(HEAL_EVERY_S)


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
