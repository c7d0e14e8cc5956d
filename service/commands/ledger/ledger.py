"""`alipayhk-gateway ledger`: read the settings of the ledger, and run a subcommand on it."""

from __future__ import annotations

import argparse

from ...config.settings import SettingsError, read_ledger_settings
from ...ledger.opening import server_of
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
    if isinstance(args.ledger_command, str):
        if server_of(url):
            from . import server  # noqa: PLC0415  (its driver takes 0.1 s to import)

            return server.run(args, url, key_file)
        return files.run(args, url, key_file)
    return requests.run(args, url, key_file)
