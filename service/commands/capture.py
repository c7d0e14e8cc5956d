"""`alipayhk-gateway capture next N`: let a running gateway capture its next N good exchanges."""

from __future__ import annotations

import argparse

from ..config.settings import SettingsError, read_from_environment
from ..jobs.captures import NEXT_MAX, ask_for_next
from .exit_codes import EX_CANTCREAT, EX_CONFIG, fail
from .options import add_config, refuse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    of_next = commands.add_parser(
        "next",
        help="capture the next good exchanges, too",
        description="The gateway looks for it every half second. Several workers capture N exchanges"
        " together.",
    )
    of_next.add_argument("count", type=int, metavar="N", help=f"how many, at most {NEXT_MAX}")
    add_config(of_next)


def run(args: argparse.Namespace) -> int:
    """Leave the request in the directory."""
    if not 1 <= args.count <= NEXT_MAX:
        return fail(f"N must be from 1 to {NEXT_MAX}", EX_CONFIG)
    try:
        directory = read_from_environment(args.config).capture.dir
    except SettingsError as error:
        return refuse(error.faults)
    if directory is None:
        return fail("CAPTURE_DIR is not set, so the gateway captures nothing", EX_CONFIG)
    try:
        ask_for_next(directory, args.count)
    except OSError as error:
        return fail(f"{directory}: {error.strerror}", EX_CANTCREAT)
    print(f"the gateway captures its next {args.count} good exchanges in {directory}")
    return 0
