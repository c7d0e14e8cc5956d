"""The gateway as one process: everything put together, run until a signal, taken apart in order."""

from __future__ import annotations

import asyncio
import signal

from clients.alipayhk.client import Client
from clients.alipayhk.keys import fingerprint

from .admin import start_admin
from .delivery import Delivery
from .linkage import LinkageService
from .logs import log
from .metrics import Metrics
from .server import Server
from .settings import Settings
from .upstream import endpoints_of, transport_of


async def run(settings: Settings, *, shared: bool) -> None:
    """Serve until SIGTERM or SIGINT, then drain; raise CannotListen.

    `shared` says that this is one of several workers, on ports that all of them listen on.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    metrics = Metrics()
    transport = transport_of(settings)
    try:
        delivery = Delivery(Client(transport), metrics, max_in_flight=settings.max_in_flight)
        linkage = LinkageService(endpoints_of(settings), delivery, settings.biz_time_ahead_s)
        server = Server(settings, linkage, metrics, shared=shared)
        admin = await start_admin(settings.admin_listen, metrics, server.health, shared=shared)
        try:
            address = await server.start()
            _log_start(settings, str(address))
            await stopping.wait()
            log.info("stopping")
            await server.stop()
        finally:
            await admin.cleanup()
    finally:
        await transport.close()
    log.info("stopped")


def _log_start(settings: Settings, listen: str) -> None:
    """Say what serves, and which keys: an operator who rotates them looks here first."""
    public = settings.signing_key_file.key.public_key()
    log.info("our signing key", version=settings.signing_key_version, sha256=fingerprint(public))
    for version, file in settings.public_key_files.items():
        log.info("AlipayHK's key", version=version, sha256=fingerprint(file.key))
    if public.public_numbers() in [
        file.key.public_numbers() for file in settings.public_key_files.values()
    ]:
        log.warning("PUBLIC_KEY_FILES holds our own public key where AlipayHK's is needed")
    log.info("serving", listen=listen)
