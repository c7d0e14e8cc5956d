"""Read RSA keys from files, and check their size.

Accepted formats: PEM (PKCS#1, PKCS#8, SubjectPublicKeyInfo, X.509 certificate), and base64 DER without PEM
lines, on one line or many, which is what AlipayHK gives out. AlipayHK's keys have 2048 bits:
https://docs.alipay.hk/alipayhkdocs/hk/gcmc/sig
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

BITS_MIN: Final = 2048
BITS_MAX: Final = 8192
FILE_BYTES_MAX: Final = 65_536

Key = TypeVar("Key", RSAPrivateKey, RSAPublicKey)
Versioned = TypeVar("Versioned")


class KeyFileError(ValueError):
    """A file does not contain the required key. The message says why, and quotes nothing of the file."""


@dataclass(frozen=True, slots=True)
class Keys:
    """One side's keys: its own private keys, and the other side's public keys by version."""

    signing: RSAPrivateKey = field(repr=False)
    signing_version: str
    verifying: Mapping[str, RSAPublicKey] = field(repr=False)
    """The other side's keys by version, newest first. One of them wraps the AES keys."""
    decrypting: Mapping[str, RSAPrivateKey] = field(repr=False)
    """Our own keys by version, newest first. They unwrap AES keys."""


def newest_first(keys: Mapping[str, Versioned]) -> dict[str, Versioned]:
    """Sort by version, descending: numbers by value and first, then all others by text."""

    def rank(version: str) -> tuple[bool, int, str]:
        number = version.isascii() and version.isdigit()
        return number, int(version) if number else 0, version

    return {version: keys[version] for version in sorted(keys, key=rank, reverse=True)}


def load_private_key(path: Path) -> RSAPrivateKey:
    """Read an RSA private key of 2048 to 8192 bits; raise KeyFileError."""
    key = read_key(path)
    if isinstance(key, RSAPublicKey):
        raise KeyFileError("contains a public key, but a private key is needed")
    return key


def load_public_key(path: Path) -> RSAPublicKey:
    """Read an RSA public key of 2048 to 8192 bits; raise KeyFileError."""
    key = read_key(path)
    if isinstance(key, RSAPrivateKey):
        raise KeyFileError("contains a private key, but a public key is needed")
    return key


def read_key(path: Path) -> RSAPrivateKey | RSAPublicKey:
    """Read a private or public RSA key in any accepted format; raise KeyFileError."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise KeyFileError("cannot be read: no file can have this name") from None
    return parse_key(data)


def parse_key(data: bytes) -> RSAPrivateKey | RSAPublicKey:
    """Parse a private or public RSA key from the contents of a file; raise KeyFileError."""
    if len(data) > FILE_BYTES_MAX:
        raise KeyFileError(f"is larger than {FILE_BYTES_MAX} bytes")
    if not data.strip():
        raise KeyFileError("is empty")
    key = _parse_pem(data) if b"-----BEGIN" in data else _parse_der(_base64_der(data))
    if not isinstance(key, RSAPrivateKey | RSAPublicKey):
        raise KeyFileError("contains a key that is not an RSA key")
    if not BITS_MIN <= key.key_size <= BITS_MAX:
        raise KeyFileError(f"contains a key of {key.key_size} bits; {BITS_MIN} to {BITS_MAX} are allowed")
    return key


def fingerprint(key: RSAPublicKey) -> str:
    """Return the SHA-256 of the SubjectPublicKeyInfo in hex, for two people to compare a key."""
    return hashlib.sha256(public_der(key)).hexdigest()


def public_der(key: RSAPublicKey) -> bytes:
    """Return the key as a DER SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _parse_pem(data: bytes) -> object:
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            return x509.load_pem_x509_certificate(data).public_key()
        if b"PRIVATE KEY-----" in data:
            return serialization.load_pem_private_key(data, password=None)
        return serialization.load_pem_public_key(data)
    except TypeError:
        raise KeyFileError("is encrypted with a passphrase, which is not supported") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError("is PEM, but not a key that can be read") from None


def _parse_der(data: bytes) -> object:
    for load in (_load_der_private, serialization.load_der_public_key, _load_der_certificate):
        try:
            return load(data)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
    raise KeyFileError("is base64, but not a DER key that can be read")


def _load_der_private(data: bytes) -> object:
    return serialization.load_der_private_key(data, password=None)


def _load_der_certificate(data: bytes) -> object:
    return x509.load_der_x509_certificate(data).public_key()


def _base64_der(data: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error:
        raise KeyFileError("is neither PEM nor base64 DER") from None
