"""What several commands share: the option --config, and how faults of the settings are printed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .exit_codes import EX_CONFIG


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a settings file, for every command that reads settings."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings in TOML; the environment wins"
    )


def refuse(faults: Sequence[str]) -> int:
    """Name every fault; return the exit status."""
    print("alipayhk-gateway: the configuration cannot be used:", file=sys.stderr)
    for fault in faults:
        print(f"  - {fault}", file=sys.stderr)
    return EX_CONFIG
