"""The command `alipayhk-client sync-linkage`."""

from __future__ import annotations

import argparse

from alipayhk.linkage.v1.linkage_service_pb2 import SyncLinkageRequest

from . import call_command


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    call_command.configure(parser, SyncLinkageRequest)


def run(args: argparse.Namespace) -> int:
    """Call SyncLinkage once; return the exit status."""
    return call_command.run(args, SyncLinkageRequest, lambda client: client.sync_linkage)
