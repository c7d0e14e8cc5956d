"""One gateway process: build its parts from the settings, run until a signal, shut down in order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from clients.alipayhk.client import Client

from .config.certificate_files import expiry_times
from .config.environment import process_environment
from .config.reload import Reload, Reloader
from .config.settings import Settings
from .control import beat, reloading, stop_event
from .delivery.clock_skew import ClockSkew
from .delivery.delivery import Delivery, Limits
from .delivery.ledger_session import LedgerSession
from .jobs.captures import capturing
from .jobs.gauges import running, show_delivery
from .jobs.maintenance import ledger_session
from .replaceable import Replaceable
from .server.admin import start_admin
from .server.linkage_service import LinkageService
from .server.server import ListenerStopped, Server
from .start_log import log_start
from .telemetry.logs import log, set_level, stack_of
from .telemetry.metrics import Metrics
from .telemetry.tracing import tracing
from .upstream import transport_of
from .version import commit, gateway_version


async def run(
    settings: Settings,
    *,
    shared: bool,
    reloader: Reloader | None = None,
    reload_success: bool = True,
    config_file: Path | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT, or SIGHUP of a terminal; then drain. Raise CannotListen or LedgerFault.

    If a listener stops unexpectedly, finish the calls in progress and raise ListenerStopped. `shared`: this
    process is one of several workers, and its supervisor passes other settings; else the `reloader` does.
    """
    in_use, metrics = Replaceable(settings), _metrics()
    _show(in_use, metrics, Reload(settings, reload_success))
    use = partial(_use, in_use, metrics)
    stopping = stop_event(use, shared=shared)
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(tracing(process_environment()))
        skew = ClockSkew(metrics, window_s=settings.response_time_window_s)
        session = await stack.enter_async_context(ledger_session(settings, metrics, skew))
        client = await _client(stack, settings, in_use)
        delivery = _delivery(settings, in_use, client, session, metrics, skew, shared=shared)
        linkage = LinkageService(in_use.endpoints.current, delivery)
        server = Server(settings, linkage, metrics, in_use, shared=shared, tracer=tracer)
        admin = await start_admin(settings.admin_listen, metrics, server.health, skew, shared=shared)
        stack.push_async_callback(admin.cleanup)
        address = await server.start()
        await stack.enter_async_context(running(show_delivery(delivery, metrics)))
        await stack.enter_async_context(reloading(reloader, use))
        log_start(settings, str(address), config_file)
        if shared:
            beat()
        fault = await _until_stopping(stopping, server)
        log.info("shutdown started")
        await server.stop(listener_stopped=fault is not None)
    log.info("shutdown finished")
    if fault:
        raise fault


def _metrics() -> Metrics:
    """Return the metrics, with what is known before the first call."""
    metrics = Metrics()
    metrics.set_build_info(version=gateway_version(), commit=commit())
    return metrics


def _use(in_use: Replaceable, metrics: Metrics, reload: Reload) -> None:
    """Use other settings from now on."""
    in_use.replace(reload.settings)
    set_level(reload.settings.log_level)
    _show(in_use, metrics, reload)


def _show(in_use: Replaceable, metrics: Metrics, reload: Reload) -> None:
    """Show whether all settings are valid, and when the certificates in use expire."""
    metrics.config_reload_success.set(reload.success)
    metrics.set_certificate_expiry(
        expiry_times(in_use.certificate.current, reload.settings.upstream_ca_file)
    )


async def _client(stack: AsyncExitStack, settings: Settings, in_use: Replaceable) -> Client:
    """Make the client; the stack closes its connections, and then ends its captures."""
    watch = await stack.enter_async_context(capturing(settings))
    transport = transport_of(settings)
    stack.push_async_callback(transport.close)
    return Client(transport, endpoint_of=lambda api: in_use.endpoints.current[api], watch=watch)


def _delivery(
    settings: Settings,
    in_use: Replaceable,
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
        apis=in_use.endpoints.current,
        codes=in_use.codes,
        limits=Limits(settings.max_in_flight, settings.attempts_max, settings.workers if shared else 1),
        skew=skew,
    )


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
