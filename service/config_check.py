"""`alipayhk-gateway config check`: name every fault of the settings, or show those in force."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .exits import EX_CONFIG
from .settings import SettingsError, described, read_from_environment


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    check = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "check", help="name every fault, or show the settings in force"
    )
    check.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML; the environment wins")
    check.add_argument("--json", action="store_true", help="write JSON")


def run(args: argparse.Namespace) -> int:
    """Check the settings."""
    try:
        rows = described(read_from_environment(args.config))
    except SettingsError as error:
        if not args.json:
            return refuse(error.faults)
        print(json.dumps({"faults": error.faults}))
        return EX_CONFIG
    if args.json:
        print(json.dumps({"settings": rows}, indent=2))
    else:
        for name, value in rows.items():
            print(f"{name} = {value}")
    return 0


def refuse(faults: Sequence[str]) -> int:
    """Name every fault; return the exit status."""
    print("alipayhk-gateway: the configuration cannot be used:", file=sys.stderr)
    for fault in faults:
        print(f"  - {fault}", file=sys.stderr)
    return EX_CONFIG
