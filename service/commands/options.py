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

_OF_SETTING: Final = re.compile(r"[A-Z][A-Z_]+ ")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option --config."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings in TOML; the environment overrides them"
    )


def refuse(faults: Sequence[str]) -> int:
    """Print the errors; return the exit status."""
    names = f" (NAME is {PREFIX}NAME in the environment, or name in the file of --config)"
    named = names if any(map(_OF_SETTING.match, faults)) else ""
    print(f"alipayhk-gateway: the configuration cannot be used{named}:", file=sys.stderr)
    for fault in faults:
        print(f"  - {fault}", file=sys.stderr)
    return EX_CONFIG
