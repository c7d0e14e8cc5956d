"""`alipayhk-gateway ledger` on the ledger that the settings name: its requests, and its file."""

from __future__ import annotations

import argparse

from . import ledger_commands, ledger_files
from .config_check import add_config, refuse
from .settings import SettingsError, read_ledger_settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    add_parser = ledger_commands.configure(parser, add_config)
    ledger_files.configure(add_parser, add_config)


def run(args: argparse.Namespace) -> int:
    """Run one subcommand."""
    try:
        url, key_file = read_ledger_settings(args.config)
    except SettingsError as error:
        return refuse(error.faults)
    if "ledger_file_command" in args:
        return ledger_files.run(args, url, key_file)
    return ledger_commands.run(args, url, key_file)
