"""The command line, `alipayhk-gateway`.

Exit statuses are those of sysexits.h: 0 success, 64 wrong usage, 69 a port is taken, 74 the output cannot
be written, 78 wrong configuration; and 141 if the reader of the output closed it, as in a shell. `health`
uses the exit statuses of grpc_health_probe.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, NoReturn, TextIO

from ..config.environment import silence_grpc
from ..version import commit, gateway_version
from .exit_codes import BAD_ARGUMENTS, EX_IOERR, EX_PIPE, EX_USAGE

COMMANDS: Final = {
    "serve": ("service.commands.serve", "serve gRPC until SIGTERM"),
    "sandbox": ("sandbox.cli", "run a local AlipayHK for development"),
    "demo": ("service.commands.demo.demo", "create keys, start sandbox and gateways, make calls"),
    "keys": ("service.commands.keys", "create or inspect keys"),
    "ledger": (
        "service.commands.ledger.ledger",
        "list and resolve requests; create, back up and restore the ledger",
    ),
    "config": ("service.commands.config", "check the settings, or write an example"),
    "doctor": ("service.commands.doctor.doctor", "find out why calls to AlipayHK fail"),
    "capture": ("service.commands.capture", "capture exchanges with AlipayHK, sealed"),
    "health": ("service.commands.health", "check whether a gateway is serving"),
}
"""Each command's module, with `configure(parser)` and `run(args) -> exit status`, and its help text."""


class _BadUsage(Exception):
    """The command line is wrong; argparse itself would exit with status 2."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _BadUsage(f"{self.format_usage()}{self.prog}: {message}")


class _ShowVersion(argparse.Action):
    """Finds the commit out only when it is asked for; argparse's own action needs it in every run."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(f"{gateway_version()} (commit {commit()})")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    silence_grpc()
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:  # Python sets None if it is closed, as with >&-
                sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as `head`, has read enough
        _discard(sys.stdout, sys.stderr)
        return EX_PIPE
    except OSError as error:
        if not _output_fails():
            raise
        print(f"alipayhk-gateway: standard output: {error.strerror}", file=sys.stderr)
        return EX_IOERR


def _run(arguments: Sequence[str] | None) -> int:
    argv = list(sys.argv[1:] if arguments is None else arguments)
    command = argv[0] if argv else ""
    try:
        args = _parser(command).parse_args(argv)
    except _BadUsage as error:
        print(error, file=sys.stderr)
        return BAD_ARGUMENTS if command == "health" else EX_USAGE
    run: Callable[[argparse.Namespace], int] = args.run
    return run(args)


def _output_fails() -> bool:
    """Return whether standard output cannot be written; the failed write itself has emptied the buffer."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError:
        _discard(sys.stdout)
        return True
    return False


def _discard(*streams: TextIO) -> None:
    """Discard what is still written: Python flushes the streams at exit, which would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())


def _parser(command: str) -> argparse.ArgumentParser:
    """Add every command, but import only one: `health` runs every few seconds and must start fast."""
    parser = _Parser(prog="alipayhk-gateway", description="A gRPC gateway to AlipayHK's account linkage.")
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show version and commit, and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, purpose) in COMMANDS.items():
        # The production image contains no sandbox, which the demo needs.
        if name not in {"sandbox", "demo"} or find_spec("sandbox") is not None:
            of_command = commands.add_parser(name, help=purpose)
            if name == command:
                loaded = import_module(module)
                of_command.set_defaults(run=loaded.run)
                loaded.configure(of_command)
    return parser
