"""`alipayhk-gateway config`: list all errors in the settings, show the effective ones, write an example."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from ..config.declaration import values_of
from ..config.environment import process_environment
from ..config.example import example
from ..config.files import KeyFile, PemFile, SecretFile, path_of
from ..config.risks import risks_of
from ..config.settings import Settings, SettingsError, read_from_environment, read_ledger_settings
from ..credentials.callers import Callers
from ..ledger import LedgerUnavailable
from ..ledger.opening import fault_of
from ..outcomes.result_codes import ResultCodes
from ..server.ports import address_faults, ports_in_use
from ..server.tls import start_faults
from ..telemetry.tracing import tracing_risks
from .exit_codes import EX_CONFIG, EX_UNAVAILABLE
from .options import add_config, refuse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="config_command")
    check = commands.add_parser("check", help="list all errors, or show the effective settings")
    add_config(check)
    check.add_argument("--json", action="store_true", help="write JSON")
    commands.add_parser("example", help="write a settings file with every setting, its meaning and default")


def run(args: argparse.Namespace) -> int:
    """Check the settings, or write an example."""
    if args.config_command == "example":
        print(example(), end="")
        return 0
    try:
        settings, warnings = _checked(args.config)
    except SettingsError as error:
        faults = error.faults
        if not args.json:
            return refuse(faults)
        print(json.dumps({"faults": faults}))
        return EX_CONFIG
    rows = described(settings)
    if args.json:
        print(json.dumps({"settings": rows, "warnings": warnings}, indent=2))
        return 0
    for name, value in rows.items():
        print(f"{name} = {value}")
    for warning in warnings:
        print(f"alipayhk-gateway: warning: {warning}", file=sys.stderr)
    return 0


def _checked(config_file: Path | None) -> tuple[Settings, list[str]]:
    """Return settings that `serve` would accept, and warnings; raise SettingsError with every error."""
    try:
        settings = read_from_environment(config_file)
    except SettingsError as error:
        if any(fault.startswith(("LEDGER_", "--config")) for fault in error.faults):
            raise
        ledger, _ = _examined(*read_ledger_settings(config_file))
        raise SettingsError(error.faults + ledger) from None
    ledger, unavailable = _examined(settings.ledger_url, path_of(settings.ledger_key_file))
    if faults := address_faults(settings) + start_faults(settings) + ledger:
        raise SettingsError(faults)
    warnings = risks_of(settings, datetime.now(UTC)) + ports_in_use(settings) + unavailable
    return settings, warnings + tracing_risks(process_environment())


def _examined(url: str, key_file: Path | None) -> tuple[list[str], list[str]]:
    """Return why `serve` would refuse the ledger, and why nobody can tell now."""
    try:
        fault = fault_of(url, key_file)
    except LedgerUnavailable as error:
        return [], [f"{error}; serve would exit with status {EX_UNAVAILABLE}"]
    return ([fault] if fault else []), []


def described(settings: Settings) -> dict[str, str]:
    """Return every setting as the environment would contain it: of a file its path, not its contents."""
    rows = {name.upper(): _shown(value) for name, value in values_of(settings)}
    # A user name of a proxy can be a secret, too.
    proxy = re.sub(r"//.*@", "//", rows["UPSTREAM_PROXY"])
    return rows | {"UPSTREAM_PROXY": proxy, "LEDGER_URL": _without_password(rows["LEDGER_URL"])}


def _without_password(url: str) -> str:
    """Return a ledger's URL without the passwords of its user and of its options."""
    url = re.sub(r"//([^:@/]*):.*@", r"//\1@", url)
    return re.sub(r"(?<=[?&])([a-z]*password=)[^&]*", r"\1", url)


def _shown(value: object) -> str:
    if isinstance(value, KeyFile | PemFile | SecretFile):
        return str(value.path)
    if isinstance(value, Mapping):
        return ",".join(f"{version}={_shown(file)}" for version, file in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Callers | ResultCodes):
        return str(value.file)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
