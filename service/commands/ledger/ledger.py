"""`alipayhk-gateway ledger`: read the settings of the ledger, and run a subcommand on it."""

from __future__ import annotations

import argparse

from ...config.settings import SettingsError, read_ledger_settings
from ..options import add_config, refuse
from . import files, requests


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    add_parser = requests.configure(parser, add_config)
    files.configure(add_parser, add_config)


def run(args: argparse.Namespace) -> int:
    """Run one subcommand."""
    try:
        url, key_file = read_ledger_settings(args.config)
    except SettingsError as error:
        return refuse(error.faults)
    if "ledger_file_command" in args:
        return files.run(args, url, key_file)
    return requests.run(args, url, key_file)
