"""One gateway process: build its parts from the settings, run until a signal, shut down in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

from clients.alipayhk.client import Client

from .config.certificate_files import expiry_times
from .config.environment import process_environment
from .config.settings import Settings
from .credentials.keyring import Credentials, Keyring
from .delivery.clock_skew import ClockSkew
from .delivery.delivery import Delivery, Limits
from .delivery.ledger_session import LedgerSession
from .jobs.gauges import running, show_delivery
from .jobs.maintenance import ledger_session
from .outcomes.result_codes import ResultCodes
from .server.admin import start_admin
from .server.linkage_service import LinkageService
from .server.server import ListenerStopped, Server
from .server.tls import certificate_of
from .start_log import log_start
from .telemetry.logs import log, stack_of
from .telemetry.metrics import Metrics
from .telemetry.metrics_file import keep_metrics_shared
from .telemetry.tracing import tracing
from .upstream import endpoints_of, transport_of
from .version import commit, gateway_version

BEAT_EVERY_S: Final = 1.0
"""Time between two heartbeats of a worker to its supervisor."""


async def run(
    settings: Settings, *, shared: bool, keyring: Keyring | None = None, config_file: Path | None = None
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP, then drain; raise CannotListen or LedgerFault.

    If a listener stops unexpectedly, finish the calls in progress and raise ListenerStopped. `shared` means
    that this process is one of several workers on the same ports. A caller that replaces keys or the
    certificate while the gateway runs passes the `keyring`; without it they are those of the settings.
    """
    keyring = keyring or Keyring(credentials_of(settings))
    stopping = _stopping(shared=shared)
    metrics = _metrics(settings, keyring)
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(tracing(process_environment()))
        skew = ClockSkew(metrics, window_s=settings.response_time_window_s)
        session = await stack.enter_async_context(ledger_session(settings, metrics, skew))
        transport = transport_of(settings)
        stack.push_async_callback(transport.close)
        client = Client(transport, keys_of=keyring.keys_of)
        delivery = _delivery(settings, client, session, metrics, skew, shared=shared)
        linkage = LinkageService(endpoints_of(settings), delivery)
        server = Server(settings, linkage, metrics, keyring, shared=shared, tracer=tracer)
        admin = await start_admin(settings.admin_listen, metrics, server.health, skew, shared=shared)
        stack.push_async_callback(admin.cleanup)
        address = await server.start()
        await stack.enter_async_context(running(show_delivery(delivery, metrics)))
        log_start(settings, str(address), config_file)
        if shared:
            _beat()
        fault = await _until_stopping(stopping, server)
        log.info("shutdown started")
        await server.stop(listener_stopped=fault is not None)
    log.info("shutdown finished")
    if fault:
        raise fault


def credentials_of(settings: Settings) -> Credentials:
    """Return the keys for each API, and the listener's certificate, from the files of the settings."""
    return Credentials(
        keys={api: endpoint.keys for api, endpoint in endpoints_of(settings).items()},
        certificate=certificate_of(settings),
    )


def _delivery(
    settings: Settings,
    client: Client,
    session: LedgerSession,
    metrics: Metrics,
    skew: ClockSkew,
    *,
    shared: bool,
) -> Delivery:
    return Delivery(
        client,
        session,
        metrics,
        apis=endpoints_of(settings),
        codes=settings.result_codes_file or ResultCodes(),
        limits=Limits(settings.max_in_flight, settings.attempts_max, settings.workers if shared else 1),
        skew=skew,
    )


def _metrics(settings: Settings, keyring: Keyring) -> Metrics:
    """Return the metrics, with what is known before the first call."""
    metrics = Metrics()
    metrics.set_build_info(version=gateway_version(), commit=commit())
    metrics.set_certificate_expiry(expiry_times(keyring.current.certificate, settings.upstream_ca_file))
    return metrics


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a gateway; a closed terminal sends SIGHUP, which nohup ignores."""
    stopping = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    return stopping if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else stopping[:-1]


def _stopping(*, shared: bool) -> asyncio.Event:
    """Return an event that is set when the gateway must stop."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, stopping.set)
    if shared:
        _end_with_supervisor(stopping)
    return stopping


async def _until_stopping(stopping: asyncio.Event, server: Server) -> ListenerStopped | None:
    """Wait for a signal; if a listener stops unexpectedly first, log and return that."""
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
        "listener stopped unexpectedly",
        where=fault.setting,
        error_class=type(cause).__name__,
        stack=stack_of(cause),
    )
    return fault


def _end_with_supervisor(stopping: asyncio.Event) -> None:
    """Stop this worker when its supervisor exits, which closes the pipe at this worker's standard input.

    Nothing else would stop it, and it would share the port with the next supervisor's workers.
    """
    loop, pipe = asyncio.get_running_loop(), sys.stdin.fileno()

    def exited() -> None:
        loop.remove_reader(pipe)
        stopping.set()

    loop.add_reader(pipe, exited)


def _beat() -> None:
    """Write heartbeats to the supervisor while the event loop runs; it kills a worker that sends none.

    Also write the metrics again if their files were removed.
    """
    keep_metrics_shared()
    pipe = sys.stdin.fileno()
    os.set_blocking(pipe, False)  # a supervisor that was stopped does not read
    with suppress(OSError):
        os.write(pipe, b".")
    asyncio.get_running_loop().call_later(BEAT_EVERY_S, _beat)
