"""Read RSA keys from files, and check their size.

Accepted formats: PKCS#1, PKCS#8, SubjectPublicKeyInfo and X.509 certificates, as PEM, as DER, and as base64
DER without PEM lines, on one line or many, which is what AlipayHK gives out. The content decides which of
them it is, not the label of a PEM block: AlipayHK's key tool gives out PKCS#8 without PEM lines, and people
add those of RSA PRIVATE KEY.
AlipayHK's keys have 2048 bits: https://docs.alipay.hk/alipayhkdocs/hk/gcmc/sig
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from ..regular_file import open_regular

BITS_MIN: Final = 2048
BITS_MAX: Final = 8192
FILE_BYTES_MAX: Final = 65_536
_BOM: Final = b"\xef\xbb\xbf"
_BLOCK: Final = re.compile(
    rb"-----BEGIN ([^\r\n-]+)-----((?:(?!-----BEGIN ).)*?)-----END \1-----", re.DOTALL
)
_NO_KEY: Final = b"PARAMETERS"
"""The end of the label of a PEM block that OpenSSL writes before an elliptic key."""
_ENCRYPTED: Final = "is encrypted with a passphrase, which is not supported"
_NOT_PEM: Final = "is PEM, but not a key that can be read"

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
        with open_regular(path) as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise KeyFileError("cannot be read: no file can have this name") from None
    return parse_key(data)


def pem_fault(data: bytes) -> str | None:
    """Return that a PEM block in the contents of a file has no end, else None."""
    if b"-----BEGIN " not in _BLOCK.sub(b"", data):
        return None
    return "is incomplete or was cut off: a BEGIN line has no END line with the same label"


def parse_key(data: bytes) -> RSAPrivateKey | RSAPublicKey:
    """Parse a private or public RSA key from the contents of a file; raise KeyFileError."""
    if len(data) > FILE_BYTES_MAX:
        raise KeyFileError(f"is larger than {FILE_BYTES_MAX} bytes")
    if not data.strip():
        raise KeyFileError("is empty")
    key = _parse_pem(data) if b"-----BEGIN" in data else _parse_bare(data)
    if not isinstance(key, RSAPrivateKey | RSAPublicKey):
        raise KeyFileError("contains a key that is not an RSA key")
    if not BITS_MIN <= key.key_size <= BITS_MAX:
        raise KeyFileError(f"contains a key of {key.key_size} bits; {BITS_MIN} to {BITS_MAX} are allowed")
    return key


def fingerprint(key: RSAPrivateKey | RSAPublicKey) -> str:
    """Return the SHA-256 of the SubjectPublicKeyInfo in hex, for two people to compare a key."""
    public = key.public_key() if isinstance(key, RSAPrivateKey) else key
    return hashlib.sha256(public_der(public)).hexdigest()


def key_der(key: RSAPrivateKey | RSAPublicKey) -> bytes:
    """Return a key as DER, PKCS#8 or SubjectPublicKeyInfo."""
    if isinstance(key, RSAPublicKey):
        return public_der(key)
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_der(key: RSAPublicKey) -> bytes:
    """Return the key as a DER SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_of_der(der: bytes) -> RSAPrivateKey | RSAPublicKey:
    """Read a key that `key_der` wrote; it is not checked again, which takes long for a private key."""
    try:
        private = serialization.load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    except ValueError:
        return cast("RSAPublicKey", serialization.load_der_public_key(der))
    return cast("RSAPrivateKey", private)


def _parse_pem(data: bytes) -> object:
    """Parse the key of a PEM file; a private key, its public key and its certificate count as one."""
    if fault := pem_fault(data):
        raise KeyFileError(fault)
    blocks = (block for block in _BLOCK.finditer(data) if not block[1].endswith(_NO_KEY))
    found = [_parse_block(*block.groups()) for block in blocks]
    if not found:
        raise KeyFileError(_NOT_PEM)
    if any(_public_half(key) != _public_half(found[0]) for key in found):
        raise KeyFileError("contains several keys; put each key in a file of its own")
    return next((key for key in found if isinstance(key, RSAPrivateKey)), found[0])


def _parse_block(label: bytes, body: bytes) -> object:
    if b"ENCRYPTED" in label or b"Proc-Type: 4,ENCRYPTED" in body:
        raise KeyFileError(_ENCRYPTED)
    try:
        return _parse_der(base64.b64decode(b"".join(body.split()), validate=True))
    except (binascii.Error, _NotDer):
        raise KeyFileError(_NOT_PEM) from None


def _public_half(key: object) -> object:
    """Return a value that is equal for the private key, the public key and the certificate of one pair."""
    if isinstance(key, RSAPrivateKey):
        key = key.public_key()
    return key.public_numbers() if isinstance(key, RSAPublicKey) else key


def _parse_bare(data: bytes) -> object:
    """Parse base64 DER without PEM lines, or else binary DER."""
    try:
        der = base64.b64decode(b"".join(data.removeprefix(_BOM).split()), validate=True)
    except binascii.Error:
        der, sentence = data, "is neither PEM nor base64 DER"
    else:
        sentence = "is base64, but not a DER key that can be read"
    try:
        return _parse_der(der)
    except _NotDer:
        raise KeyFileError(sentence) from None


class _NotDer(Exception):
    """The bytes are not a key in DER."""


def _parse_der(data: bytes) -> object:
    for load in _LOADERS:
        try:
            return load(data)
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
            continue
        except TypeError:  # cryptography asks for a password
            raise KeyFileError(_ENCRYPTED) from None
    raise _NotDer


def _load_der_private(data: bytes) -> object:
    return serialization.load_der_private_key(data, password=None)


def _load_der_certificate(data: bytes) -> object:
    return x509.load_der_x509_certificate(data).public_key()


_LOADERS: Final[tuple[Callable[[bytes], object], ...]] = (
    _load_der_private,
    serialization.load_der_public_key,
    _load_der_certificate,
)
