"""The option --config, and the report of errors in the settings, for several commands."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..config.environment import PREFIX
from .exit_codes import EX_CONFIG

_OF_SETTING: Final = re.compile(r"[A-Z]+_?[A-Z_]+ ")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option --config."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings in TOML; the environment overrides them"
    )


def refuse(faults: Sequence[str]) -> int:
    """Print the errors; return the exit status."""
    print("alipayhk-gateway: the configuration cannot be used:", file=sys.stderr)
    for fault in faults:
        print(f"  - {fault}", file=sys.stderr)
    if any(map(_OF_SETTING.match, faults)):
        print(f"NAME is {PREFIX}NAME in the environment, or name in the file of --config.", file=sys.stderr)
    return EX_CONFIG
