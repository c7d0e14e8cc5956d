"""`alipayhk-client load`."""

from __future__ import annotations

import argparse
from importlib import import_module
from importlib.util import find_spec

from ..connection import Misuse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    if find_spec("hdrh") is None:
        raise Misuse("load takes the package hdrhistogram: install alipayhk-linkage[load]")
    import_module(".flags", __package__).add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Put the gateway under load; return the exit status."""
    return int(import_module(".session", __package__).run(args))
