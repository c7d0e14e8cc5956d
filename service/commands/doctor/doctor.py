"""`alipayhk-gateway doctor`: find out why AlipayHK and the gateway do not understand each other."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from . import live, message


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    live.configure(commands)
    message.configure(commands)


def run(args: argparse.Namespace) -> int:
    """Run one of the subcommands."""
    act: Callable[[argparse.Namespace], int] = args.act
    return act(args)
