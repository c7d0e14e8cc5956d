"""The command line, `alipayhk-gateway`: the composition root.

Exit statuses are sysexits': 0 done, 64 bad usage, 69 a port is taken, 78 bad configuration; `health`
has grpc_health_probe's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from . import demo, gateway, health, key_files
from .exits import EX_CONFIG, EX_UNAVAILABLE, EX_USAGE
from .logs import set_up_logs
from .server import CannotListen
from .settings import Settings, SettingsError, described, read_from_environment
from .workers import supervise


class _BadUsage(Exception):
    """The words of the command line are off; argparse's own exit status would be 2."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _BadUsage(f"{self.format_usage()}{self.prog}: {message}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        args = _parser(with_sandbox="sandbox" in argv[:1]).parse_args(argv)
    except _BadUsage as error:
        print(error, file=sys.stderr)
        return health.BAD_ARGUMENTS if "health" in argv[:1] else EX_USAGE
    run: Callable[[argparse.Namespace], int] = args.run
    return run(args)


def _parser(*, with_sandbox: bool) -> argparse.ArgumentParser:
    parser = _Parser(prog="alipayhk-gateway", description="A gRPC gateway to AlipayHK's account linkage.")
    parser.add_argument("--version", action="version", version=version("alipayhk-gateway"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve gRPC until SIGTERM")
    _add_config(serve)
    serve.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    serve.set_defaults(run=_serve)

    if find_spec("sandbox") is not None:  # the production image has none
        sandbox = commands.add_parser("sandbox", help="run a stand-in AlipayHK to develop against")
        if with_sandbox:
            _configure_sandbox(sandbox)

    demo.configure(commands.add_parser("demo", help="make keys, start sandbox and gateways, make calls"))
    key_files.configure(commands.add_parser("keys", help="make or inspect keys"))

    config = commands.add_parser("config", help="check the settings").add_subparsers(required=True)
    check = config.add_parser("check", help="name every fault, or show the settings in force")
    _add_config(check)
    check.add_argument("--json", action="store_true", help="write JSON")
    check.set_defaults(run=_check)

    health.configure(commands.add_parser("health", help="ask a gateway whether it is serving"))
    return parser


def _configure_sandbox(parser: argparse.ArgumentParser) -> None:
    from sandbox import cli as sandbox_cli  # noqa: PLC0415  (only the sandbox needs to load the sandbox)

    sandbox_cli.configure(parser)
    parser.set_defaults(run=sandbox_cli.run)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings in TOML; the environment wins"
    )


def _serve(args: argparse.Namespace) -> int:
    try:
        settings = read_from_environment(args.config)
    except SettingsError as error:
        return _refuse(error)
    set_up_logs(settings.log_level)
    if settings.workers > 1 and not args.worker:
        return supervise(settings.workers, ["--config", str(args.config)] if args.config else [])
    try:
        asyncio.run(gateway.run(settings, shared=args.worker))
    except CannotListen as error:
        print(f"alipayhk-gateway: {error}", file=sys.stderr)
        return EX_UNAVAILABLE
    return 0


def _check(args: argparse.Namespace) -> int:
    try:
        settings = read_from_environment(args.config)
    except SettingsError as error:
        if args.json:
            print(json.dumps({"faults": error.faults}))
            return EX_CONFIG
        return _refuse(error)
    _show(settings, as_json=args.json)
    return 0


def _show(settings: Settings, *, as_json: bool) -> None:
    rows = described(settings)
    if as_json:
        print(json.dumps({"settings": rows}, indent=2))
        return
    for name, value in rows.items():
        print(f"{name} = {value}")


def _refuse(error: SettingsError) -> int:
    print("alipayhk-gateway: the configuration cannot be used:", file=sys.stderr)
    for fault in error.faults:
        print(f"  - {fault}", file=sys.stderr)
    return EX_CONFIG
