"""Keep personal data out of the ledger: keyed hashes and sealed replies, with keys from one key file.

The ledger has its own key. With the signing key, every rotation of it would make all request ids look
reused, because their fingerprints would change.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from clients.alipayhk.regular_file import open_regular

from . import Key, LedgerFault
from .ownership import give_to_owner_of

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
"""Random nonces are safe in AES-GCM for 2**32 replies under one key.

https://csrc.nist.gov/pubs/sp/800/38/d/final, section 8.3
"""
FILE_BYTES_MAX: Final = 128
_PURPOSE: Final = b"alipayhk-gateway ledger 1 "

RandomBytes = Callable[[int], bytes]


class Unsealable(Exception):
    """The sealed data belongs to another row or key, or is incomplete."""


class Vault:
    """Hashes contents and linkages, and seals replies, under keys derived from the ledger's key."""

    def __init__(self, key: bytes, *, random_bytes: RandomBytes) -> None:
        self._random_bytes = random_bytes
        # Each hash is of a copy: the keys were hashed, and OpenSSL's SHA-256 looked up, once.
        self._fingerprint = HMAC(_derive(key, b"fingerprint"), SHA256())
        self._linkage = HMAC(_derive(key, b"linkage"), SHA256())
        self._cipher = AESGCM(_derive(key, b"seal"))
        self.key_id: str = _derive(key, b"key id")[:4].hex()
        """A short public name of the key, for people."""
        self.key_check: bytes = _derive(key, b"key check")[:16]
        """A value that only this key gives; a database stores it to recognize its key."""

    def fingerprint(self, content: bytes) -> bytes:
        """Hash the business content of a request."""
        return _hashed(self._fingerprint, content)

    def linkage(self, parts: tuple[str, ...]) -> bytes:
        """Hash the names of a linkage."""
        return _hashed(self._linkage, _encode(parts))

    def seal(self, plaintext: bytes, row: Key) -> bytes:
        """Encrypt the data that a replay needs, bound to this row."""
        nonce = self._random_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plaintext, _context(row))

    def unseal(self, sealed: bytes, row: Key) -> bytes:
        """Decrypt data that was sealed for this row; raise the same Unsealable for every failure."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _context(row))
        except (InvalidTag, ValueError):
            raise Unsealable("the stored reply cannot be unsealed") from None


def key_file(text: str) -> Path:
    """Read the path of a file that holds a key; raise ValueError."""
    path = Path(text)
    _read_key(path)
    return path


def read_key_file(path: Path) -> bytes:
    """Read the ledger's key; raise LedgerFault."""
    try:
        return _read_key(path)
    except ValueError as error:
        raise LedgerFault(f"the ledger's key file {path} {error}") from None


def _read_key(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            data = file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError("cannot be read: no file can have this name") from None
    try:
        key = base64.b64decode(data.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"must hold {KEY_BYTES} bytes as one line of base64")
    return key


def make_key_file(path: Path, *, random_bytes: RandomBytes) -> None:
    """Write a new key that only this user can read; raise FileExistsError if the file exists."""
    # Link the complete file into place, so that another worker that starts never reads half a key.
    unfinished = path.with_name(f"{path.name}.{random_bytes(8).hex()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        give_to_owner_of(path, descriptor)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(random_bytes(KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(unfinished)
        sync(path.parent)
    finally:
        unfinished.unlink()


def sync(path: Path) -> None:
    """Make a file, or the names in a directory, durable, so that they outlive a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=_PURPOSE + purpose).derive(key)


def _hashed(keyed: HMAC, data: bytes) -> bytes:
    keyed = keyed.copy()
    keyed.update(data)
    return keyed.finalize()


def _encode(parts: Iterable[str]) -> bytes:
    """Encode the texts length-prefixed, so that different tuples never give the same bytes."""
    return b"".join([len(data).to_bytes(4, "big") + data for data in map(str.encode, parts)])


def _context(row: Key) -> bytes:
    return _encode((row.client_id, row.api, row.request_id))
