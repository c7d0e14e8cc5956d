"""Which gateway the command line calls, and how: the flags that its commands share."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .channel import Tls

TARGET: Final = "127.0.0.1:50051"
PREFIX: Final = "ALIPAYHK_CLIENT_"
FLAGS: Final = {
    "target": ("HOST:PORT", f"the gateway's address (default: {TARGET})"),
    "ca-file": ("FILE", "PEM certificates to trust for the gateway; turns TLS on"),
    "cert-file": ("FILE", "this caller's certificate chain, PEM; turns TLS on"),
    "key-file": ("FILE", "the private key of --cert-file, PEM"),
    "server-name": ("NAME", "the name in the gateway's certificate, where it is not the target's"),
}


class Misuse(Exception):
    """What was given cannot be used; its text names every fault, for the person who typed it."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A gateway's address, and TLS to it."""

    target: str
    tls: Tls | None


def add_connection_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags; each may stand in the environment instead, as ALIPAYHK_CLIENT_<NAME>."""
    group = parser.add_argument_group(
        "connection", f"each flag may also be set in the environment: {PREFIX}TARGET ..."
    )
    for name, (metavar, meaning) in FLAGS.items():
        default = os.environ.get(PREFIX + name.upper().replace("-", "_")) or None
        group.add_argument(f"--{name}", metavar=metavar, help=meaning, default=default)
    group.add_argument("--tls", action="store_true", help="TLS, trusting the system's certificates")


def address_of(text: str) -> str:
    """Return host:port as it is; raise ValueError for what is none."""
    host, _, port = text.removeprefix("dns:///").rpartition(":")
    if host.split() != [host] or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):  # noqa: PLR2004
        raise ValueError(f"{text!r} is not host:port")
    return text


def connection_of(args: argparse.Namespace) -> Connection:
    """Read the flags; raise Misuse, which names every fault."""
    target = TARGET if args.target is None else args.target
    faults = []
    try:
        address_of(target)
    except ValueError as error:
        faults.append(f"--target: {error}")
    if (args.cert_file is None) != (args.key_file is None):
        faults.append("--cert-file and --key-file are given together")
    pem: dict[str, bytes | None] = {}
    for name in ("ca_file", "cert_file", "key_file"):
        try:
            pem[name] = None if (path := getattr(args, name)) is None else Path(path).read_bytes()
        except OSError as error:
            faults.append(f"--{name.replace('_', '-')}: {path}: {error.strerror}")
    if faults:
        raise Misuse("\n".join(faults))
    if not args.tls and args.server_name is None and all(held is None for held in pem.values()):
        return Connection(target, None)
    try:
        return Connection(target, Tls(pem["ca_file"], pem["cert_file"], pem["key_file"], args.server_name))
    except ValueError as error:
        raise Misuse(str(error)) from None
