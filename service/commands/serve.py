"""`alipayhk-gateway serve`: run the gateway, in this process or in several workers."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Final

from .. import gateway
from ..config.environment import process_environment
from ..config.files import path_of
from ..config.reload import Reload, Reloader
from ..config.risks import risks_of
from ..config.settings import Settings, SettingsError
from ..control import hangup_stops, receive
from ..ledger import LedgerFault, LedgerUnavailable
from ..ledger.opening import open_ledger
from ..server.descriptors import set_limits
from ..server.ports import address_faults, is_resolver_silent
from ..server.server import CannotListen, ListenerStopped
from ..server.tls import start_faults
from ..telemetry.lines import Lines, standard_output
from ..telemetry.logs import lines_dropped, log, set_up_logs
from ..telemetry.rendering import renderer_of
from ..telemetry.tracing import tracing_risks
from .exit_codes import EX_SOFTWARE, EX_UNAVAILABLE
from .options import add_config, refuse
from .workers import must_be_free, supervise

THREADS_S: Final = 1.0
"""Maximum wait, in seconds, for busy threads after everything else has stopped."""
SWITCH_INTERVAL_S: Final = 0.0003
"""Python's switch interval: how long the event loop may hold the GIL while another thread waits for it.

gRPC's thread and that of the ledger release the GIL often. A busy event loop releases it too, when
it polls, but takes it again before they wake up, and their wait, 5 ms by default, starts again. Under load,
a commit shared by many operations then took up to a second.
"""
GC_THRESHOLDS: Final = (10_000, 10, 10)
"""When the garbage collector runs: Python's default, 700 new objects, is a few calls."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_config(parser)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal."""
    if not hangup_stops():
        # It would end a process that cannot reload yet; workers get reloads from their supervisor.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if args.worker:
        current = receive()
        return 0 if current is None else _run(args, current)
    try:
        reloader = Reloader(process_environment(), args.config, certificate_faults=start_faults)
    except SettingsError as error:
        return refuse(error.faults)
    settings = reloader.current.settings
    in_files = start_faults(settings)
    if faults := address_faults(settings) + in_files:
        status = refuse(faults)
        # A service manager starts the gateway again after this status: DNS may not be up yet.
        return status if in_files or not is_resolver_silent(settings) else EX_UNAVAILABLE
    return _run(args, reloader.current, reloader)


def _run(args: argparse.Namespace, current: Reload, reloader: Reloader | None = None) -> int:
    """Serve with the settings until a signal; without a reloader, as a worker."""
    settings = current.settings
    lines = _set_up_logs(settings)
    set_limits()
    try:
        if reloader is not None:
            for risk in risks_of(settings, datetime.now(UTC)) + tracing_risks(process_environment()):
                log.warning("configuration risk", cause=risk)
        if reloader is None or settings.workers == 1:
            _tune_python()
            return asyncio.run(_serve(args.config, current, reloader, lines))
        asyncio.run(_try_ledger(settings))
        listens = (settings.listen, settings.admin_listen, settings.health_listen)
        must_be_free(address for address in listens if address is not None)
        return supervise(reloader, ["--config", str(args.config)] if args.config else [])
    except LedgerFault as error:
        return refuse([str(error)])
    except (CannotListen, LedgerUnavailable) as error:
        print(f"alipayhk-gateway: {error}", file=sys.stderr)
        return EX_UNAVAILABLE
    finally:
        lines.close()


def _set_up_logs(settings: Settings) -> Lines:
    output = standard_output()
    no_color = process_environment().get("NO_COLOR", "")
    render = renderer_of(settings.log_format, is_terminal=os.isatty(output), no_color=no_color)
    lines = Lines(output, partial(lines_dropped, render=render))
    set_up_logs(settings.log_level, lines, render)
    return lines


async def _try_ledger(settings: Settings) -> None:
    """Open the ledger once, so that an error is reported once and not by every worker."""
    ledger, _ = open_ledger(settings.ledger_url, path_of(settings.ledger_key_file), random_bytes=os.urandom)
    await ledger.close()


def _tune_python() -> None:
    """Set what Python's defaults make slow in a process that serves calls for a long time."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # Modules and classes are never garbage: no collection looks at them any more.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _serve(config_file: Path | None, current: Reload, reloader: Reloader | None, lines: Lines) -> int:
    """Serve; exit even if a thread hangs, for example in a DNS lookup. Return the exit status."""
    threads = ThreadPoolExecutor(thread_name_prefix="asyncio")
    asyncio.get_running_loop().set_default_executor(threads)
    status = 0
    try:
        await gateway.run(
            current.settings,
            shared=reloader is None,
            reloader=reloader,
            reload_success=current.success,
            config_file=config_file,
        )
    except ListenerStopped as error:
        print(f"alipayhk-gateway: {error}: restart the process", file=sys.stderr)
        status = EX_SOFTWARE
    shutdown = Thread(target=threads.shutdown, daemon=True)
    shutdown.start()
    shutdown.join(THREADS_S)
    if shutdown.is_alive():
        # A thread cannot be stopped, and both asyncio and Python would wait for it forever.
        lines.close()
        sys.stderr.flush()
        os._exit(status)
    return status
