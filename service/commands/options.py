"""The option --config, and the errors in the settings and their report, for several commands."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..config.environment import PREFIX
from ..config.settings import Settings
from ..gateway import certificate_of
from ..server.tls import handshake_fault
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


def start_faults(settings: Settings) -> list[str]:
    """Return the errors that show only when the files of valid settings are used."""
    certificate = certificate_of(settings)
    fault = handshake_fault(certificate) if certificate else None
    return [fault] if fault else []
