"""`alipayhk-client bind-account`."""

from __future__ import annotations

import argparse

from alipayhk.linkage.v1.linkage_service_pb2 import BindAccountRequest

from . import one_call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    one_call.configure(parser, BindAccountRequest)


def run(args: argparse.Namespace) -> int:
    """Call once."""
    return one_call.run(args, BindAccountRequest, lambda client: client.bind_account)
