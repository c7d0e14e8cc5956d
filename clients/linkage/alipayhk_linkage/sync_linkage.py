"""`alipayhk-client sync-linkage`."""

from __future__ import annotations

import argparse

from alipayhk.linkage.v1.linkage_service_pb2 import SyncLinkageRequest

from . import one_call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    one_call.configure(parser, SyncLinkageRequest)


def run(args: argparse.Namespace) -> int:
    """Call once."""
    return one_call.run(args, SyncLinkageRequest, lambda client: client.sync_linkage)
