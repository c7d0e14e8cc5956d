"""The command `alipayhk-client load`. It imports the load tester only when it runs."""

from __future__ import annotations

import argparse
from importlib import import_module
from importlib.util import find_spec

from ..connection import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    if find_spec("hdrh") is None:
        raise UsageError("load needs the package hdrhistogram: install alipayhk-linkage[load]")
    import_module(".flags", __package__).add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Run the load test; return the exit status."""
    return int(import_module(".session", __package__).run(args))
