"""`alipayhk-gateway serve`: the composition root."""

from __future__ import annotations

import argparse
import asyncio
import sys

from . import gateway
from .config_check import add_config, refuse
from .exits import EX_UNAVAILABLE
from .ledger import LedgerFault
from .logs import set_up_logs
from .server import CannotListen
from .settings import SettingsError, read_from_environment
from .workers import supervise


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_config(parser)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal."""
    try:
        settings = read_from_environment(args.config)
    except SettingsError as error:
        return refuse(error.faults)
    set_up_logs(settings.log_level)
    if settings.workers > 1 and not args.worker:
        return supervise(settings.workers, ["--config", str(args.config)] if args.config else [])
    try:
        asyncio.run(gateway.run(settings, shared=args.worker))
    except LedgerFault as error:
        return refuse([str(error)])
    except CannotListen as error:
        print(f"alipayhk-gateway: {error}", file=sys.stderr)
        return EX_UNAVAILABLE
    return 0
