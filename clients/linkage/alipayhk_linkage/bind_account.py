"""The command `alipayhk-client bind-account`."""

from __future__ import annotations

import argparse

from alipayhk.linkage.v1.linkage_service_pb2 import BindAccountRequest

from . import call_command


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    call_command.configure(parser, BindAccountRequest)


def run(args: argparse.Namespace) -> int:
    """Call BindAccount once; return the exit status."""
    return call_command.run(args, BindAccountRequest, lambda client: client.bind_account)
