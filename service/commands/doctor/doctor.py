"""`alipayhk-gateway doctor`: find out why AlipayHK and the gateway do not understand each other."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from . import live, message


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    of_live = commands.add_parser("live", help="check the keys, the connection to AlipayHK and its clock")
    live.configure(of_live)
    of_live.set_defaults(act=live.run)
    message.configure(commands)


def run(args: argparse.Namespace) -> int:
    """Run one of the subcommands."""
    act: Callable[[argparse.Namespace], int] = args.act
    return act(args)
