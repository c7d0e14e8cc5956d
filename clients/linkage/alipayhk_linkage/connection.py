"""The connection flags that all commands share: the gateway's address and TLS."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from typing import Final

from .channel import Tls, read_pem

TARGET: Final = "127.0.0.1:50051"
PREFIX: Final = "ALIPAYHK_CLIENT_"
FLAGS: Final = {
    "target": ("HOST:PORT", f"the gateway's address (default: {TARGET})"),
    "ca-file": ("FILE", "PEM certificates to trust for the gateway; turns TLS on"),
    "cert-file": ("FILE", "this caller's certificate chain, PEM; turns TLS on"),
    "key-file": ("FILE", "the private key of --cert-file, PEM"),
    "server-name": ("NAME", "the name in the gateway's certificate, if it differs from the target's host"),
}

SHARED_LEDGER: Final = f"{PREFIX}SHARED_LEDGER"


class UsageError(Exception):
    """The command line cannot be used. The text names every fault for the user."""


@dataclass(frozen=True, slots=True)
class Connection:
    """The gateway's address, the TLS settings (None for plaintext), and whether calls are spread."""

    target: str
    tls: Tls | None
    shared_ledger: bool = False


def add_connection_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags. Their defaults come from the environment variables ALIPAYHK_CLIENT_<NAME>."""
    group = parser.add_argument_group(
        "connection", f"each flag can also be set in the environment: {PREFIX}TARGET ..."
    )
    for name, (metavar, meaning) in FLAGS.items():
        default = os.environ.get(PREFIX + name.upper().replace("-", "_")) or None
        group.add_argument(f"--{name}", metavar=metavar, help=meaning, default=default)
    group.add_argument(
        "--shared-ledger",
        action="store_const",
        const="true",
        default=os.environ.get(SHARED_LEDGER) or "false",
        help=f"spread calls over all addresses: the gateways share one ledger ({SHARED_LEDGER}=true)",
    )
    group.add_argument("--tls", action="store_true", help="use TLS, and trust the system's certificates")


def address_of(text: str) -> str:
    """Return the text unchanged if it is host:port, else raise ValueError."""
    host, _, port = text.removeprefix("dns:///").rpartition(":")
    if host.split() != [host] or not (port.isascii() and port.isdigit()):
        raise ValueError(f"{text!r} is not host:port")
    if not 0 < int(port[:6]) < 65_536:  # noqa: PLR2004
        raise ValueError(f"{text!r} must have a port from 1 to 65535")
    return text


def connection_of(args: argparse.Namespace) -> Connection:
    """Read the connection flags; raise one UsageError that names every fault."""
    target = TARGET if args.target is None else args.target
    faults = []
    try:
        address_of(target)
    except ValueError as error:
        faults.append(f"--target: {error}")
    if (args.cert_file is None) != (args.key_file is None):
        faults.append("--cert-file and --key-file must be given together")
    if args.shared_ledger not in {"true", "false"}:
        faults.append(f"{SHARED_LEDGER}: must be true or false")
    shared_ledger = args.shared_ledger == "true"
    pem: dict[str, bytes | None] = {}
    for name in ("ca_file", "cert_file", "key_file"):
        try:
            pem[name] = None if (path := getattr(args, name)) is None else read_pem(path)
        except OSError as error:
            faults.append(f"--{name.replace('_', '-')}: {path}: {error.strerror}")
    if faults:
        raise UsageError("\n".join(faults))
    if not args.tls and args.server_name is None and all(data is None for data in pem.values()):
        return Connection(target, None, shared_ledger)
    try:
        tls = Tls(pem["ca_file"], pem["cert_file"], pem["key_file"], args.server_name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return Connection(target, tls, shared_ledger)
