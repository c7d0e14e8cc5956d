"""`alipayhk-gateway keys`: create a key pair for AlipayHK, or show the content of a key file."""

from __future__ import annotations

import argparse
import base64
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from clients.alipayhk.wire.keys import BITS_MAX, BITS_MIN, KeyFileError, fingerprint, public_der, read_key

from .exit_codes import EX_CANTCREAT, EX_CONFIG, fail


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    make = commands.add_parser(
        "generate",
        help="create an RSA key pair",
        description="Write NAME.key.pem (private, for SIGNING_KEY_FILE), NAME.pub.pem, and NAME.pub.b64 "
        "(the same public key as bare base64 DER, as AlipayHK's portal expects it).",
    )
    make.add_argument("directory", type=Path, metavar="DIR")
    make.add_argument("--name", default="signing", help="name of the files (default: signing)")
    make.add_argument(
        "--bits", type=int, default=BITS_MIN, help=f"{BITS_MIN} to {BITS_MAX} (default: {BITS_MIN})"
    )
    make.add_argument("--json", action="store_true", help="write JSON")
    make.set_defaults(act=_generate)
    inspect = commands.add_parser("inspect", help="show the content of a key file, and its fingerprint")
    inspect.add_argument("file", type=Path, metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="write JSON")
    inspect.set_defaults(act=_inspect)


def run(args: argparse.Namespace) -> int:
    """Run one of the subcommands."""
    act: Callable[[argparse.Namespace], int] = args.act
    return act(args)


def _generate(args: argparse.Namespace) -> int:
    if not BITS_MIN <= args.bits <= BITS_MAX:
        return fail(f"--bits must be from {BITS_MIN} to {BITS_MAX}", EX_CONFIG)
    if args.name in {"", ".", ".."} or "/" in args.name or not args.name.isprintable():
        return fail("--name must be a file name without a directory; DIR is where the files go", EX_CONFIG)
    try:
        facts = generate(args.directory, args.name, args.bits)
    except OSError as error:
        # The error of a failed write, for example on a full disk, has no file name.
        return fail(f"{error.filename or args.directory}: {error.strerror}", EX_CANTCREAT)
    _show(facts, as_json=args.json)
    return 0


def generate(directory: Path, name: str, bits: int = BITS_MIN) -> dict[str, str]:
    """Write a new key pair; return its files and fingerprint. Never overwrite a file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    private_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key()
    public_pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    directory.mkdir(parents=True, exist_ok=True)
    private_file, public_file, base64_file = (
        directory / f"{name}.{ending}" for ending in ("key.pem", "pub.pem", "pub.b64")
    )
    _write_new(
        {
            private_file: (private_pem, 0o600),
            public_file: (public_pem, 0o644),
            base64_file: (base64.b64encode(public_der(public)) + b"\n", 0o644),
        }
    )
    return {
        "private_key_file": str(private_file),
        "public_key_file": str(public_file),
        "public_key_base64_file": str(base64_file),
        "sha256": fingerprint(public),
    }


def _write_new(files: Mapping[Path, tuple[bytes, int]]) -> None:
    """Create all of these files with their modes; on an error, such as an existing file, create none."""
    written: list[Path] = []
    try:
        for path, (data, mode) in files.items():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
    except OSError:
        for path in written:
            path.unlink()
        raise


def _inspect(args: argparse.Namespace) -> int:
    try:
        key = read_key(args.file)
    except KeyFileError as error:
        return fail(f"{args.file} {error}", EX_CONFIG)
    private = isinstance(key, rsa.RSAPrivateKey)
    public = key.public_key() if isinstance(key, rsa.RSAPrivateKey) else key
    facts = {
        "kind": "private key" if private else "public key",
        "bits": str(key.key_size),
        "sha256": fingerprint(public),
        "public_key_base64": base64.b64encode(public_der(public)).decode(),
    }
    _show(facts, as_json=args.json)
    return 0


def _show(facts: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        print(f"{name}: {value}")
