"""Exchanges with AlipayHK, sealed for one recipient: personal data that only the recipient can read.

A capture is a JSON object. AES-256-GCM encrypts the exchanges, and RSA-OAEP with SHA-256 encrypts the AES
key for the recipient's public key: https://www.rfc-editor.org/rfc/rfc8017#section-7.1.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .wire.keys import fingerprint

FORMAT: Final = "alipayhk-capture-1"
_OAEP: Final = OAEP(MGF1(hashes.SHA256()), hashes.SHA256(), None)
_KEY_BITS: Final = 256
_NONCE_BYTES: Final = 12


class CaptureUnreadable(Exception):
    """A capture cannot be opened. The text says why, and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Capture:
    """What was captured of one attempt."""

    facts: Mapping[str, str]
    """The API, the reason, the time, and the fingerprints of the keys: no personal data."""
    exchanges: Sequence[Mapping[str, Any]]
    """The request and the response, in the form that `doctor message` reads."""


def seal_capture(capture: Capture, recipient: RSAPublicKey) -> bytes:
    """Return the content of a file that only the recipient's private key opens."""
    content = json.dumps({"facts": capture.facts, "exchanges": capture.exchanges}).encode()
    key, nonce = AESGCM.generate_key(_KEY_BITS), os.urandom(_NONCE_BYTES)
    members = {
        "format": FORMAT,
        "recipient": fingerprint(recipient),
        "key": _text(recipient.encrypt(key, _OAEP)),
        "nonce": _text(nonce),
        "content": _text(AESGCM(key).encrypt(nonce, content, FORMAT.encode())),
    }
    return json.dumps(members).encode() + b"\n"


def is_capture(members: object) -> TypeGuard[Mapping[str, Any]]:
    """Return whether a JSON value is a capture."""
    return isinstance(members, dict) and str(members.get("format", "")).startswith("alipayhk-capture-")


def open_capture(members: Mapping[str, Any], key: RSAPrivateKey) -> Capture:
    """Open a capture; raise CaptureUnreadable."""
    if members.get("format") != FORMAT:
        raise CaptureUnreadable("The capture has the format of another version of the gateway.")
    own = fingerprint(key.public_key())
    if members.get("recipient") != own:
        raise CaptureUnreadable(f"The capture is sealed for another key than this one (SHA-256 {own}).")
    try:
        wrapped, nonce, content = (
            base64.b64decode(members[name], validate=True) for name in ("key", "nonce", "content")
        )
        opened = json.loads(AESGCM(key.decrypt(wrapped, _OAEP)).decrypt(nonce, content, FORMAT.encode()))
        return Capture(opened["facts"], opened["exchanges"])
    except (KeyError, TypeError, ValueError, binascii.Error, InvalidTag):
        raise CaptureUnreadable("The capture is damaged.") from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
