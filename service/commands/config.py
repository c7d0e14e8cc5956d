"""`alipayhk-gateway config check`: list all errors in the settings, or show the effective settings."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping

from ..config.declaration import values_of
from ..config.settings import Settings, SettingsError, read_from_environment
from ..config.values import KeyFile
from ..credentials.callers import Callers
from ..ledger.opening import fault_of
from ..outcomes.result_codes import ResultCodes
from .exit_codes import EX_CONFIG
from .options import add_config, refuse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    check = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "check", help="list all errors, or show the effective settings"
    )
    add_config(check)
    check.add_argument("--json", action="store_true", help="write JSON")


def run(args: argparse.Namespace) -> int:
    """Check the settings."""
    try:
        settings = read_from_environment(args.config)
        if fault := fault_of(settings.ledger_url, settings.ledger_key_file):
            raise SettingsError([fault])
    except SettingsError as error:
        if not args.json:
            return refuse(error.faults)
        print(json.dumps({"faults": error.faults}))
        return EX_CONFIG
    rows = described(settings)
    if args.json:
        print(json.dumps({"settings": rows}, indent=2))
    else:
        for name, value in rows.items():
            print(f"{name} = {value}")
    return 0


def described(settings: Settings) -> dict[str, str]:
    """Return every setting as the environment would contain it; a key is the path of its file."""
    rows = {name.upper(): _shown(value) for name, value in values_of(settings)}
    # The password of the proxy is not shown.
    return rows | {"UPSTREAM_PROXY": re.sub(r"//.*@", "//", rows["UPSTREAM_PROXY"])}


def _shown(value: object) -> str:
    if isinstance(value, KeyFile):
        return str(value.path)
    if isinstance(value, Mapping):
        return ",".join(f"{version}={_shown(file)}" for version, file in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Callers | ResultCodes):
        return "given"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
