"""The program `alipayhk-client`. Each command is a module with `configure(parser)` and `run(args)`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn

from .connection import UsageError
from .version import version_and_commit

COMMANDS: Final = {
    "sync-linkage": ("sync_linkage", "notify AlipayHK that a membership or card was bound or unbound"),
    "bind-account": ("bind_account", "bind a bill account to a wallet user"),
    "load": ("load.command", "put load on the gateway, and report latency, throughput and errors"),
}
"""The module and the help text of each command. Only the module of the chosen command is imported."""

EX_USAGE: Final = 64
"""The exit status for a wrong command line, as in sysexits.h."""
INTERRUPTED: Final = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage().rstrip()}")


class _ShowVersion(argparse.Action):
    """Finds the commit out only when it is asked for; argparse's own action needs it in every run."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(version_and_commit())
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sys.stderr is None:  # Python sets None if standard error is closed, as with 2>&-
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    try:
        args = _parser(arguments[0] if arguments else "").parse_args(arguments)
        return int(args.run(args))
    except UsageError as error:
        print(f"alipayhk-client: {error}", file=sys.stderr)
        return EX_USAGE
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser(chosen: str) -> argparse.ArgumentParser:
    parser = _Parser(prog="alipayhk-client", description="Calls the AlipayHK gateway.")
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show version and commit, and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, does) in COMMANDS.items():
        command = commands.add_parser(name, help=does, description=does)
        if name == chosen:
            loaded = import_module(f".{module}", __package__)
            loaded.configure(command)
            command.set_defaults(run=loaded.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
