"""The text of the headers Signature and Encrypt: `key=value,key=value`."""

from __future__ import annotations

from typing import Final

from .. import crypto

SIGNATURE_ALGORITHM: Final = "RSA256"
ENCRYPTION_ALGORITHM: Final = "RSA_AES"


def signature_header(key_version: str, signature: bytes) -> str:
    """Write the value of the header Signature."""
    text = crypto.url_base64_text(signature)
    return f"algorithm={SIGNATURE_ALGORITHM},keyVersion={key_version},signature={text}"


def encrypt_header(key_version: str, wrapped_key: bytes) -> str:
    """Write the value of the header Encrypt."""
    text = crypto.url_base64_text(wrapped_key)
    return f"algorithm={ENCRYPTION_ALGORITHM},keyVersion={key_version},symmetricKey={text}"


def header_pairs(value: str) -> dict[str, str]:
    """Read `key=value,key=value`; raise ValueError for anything else, or for a key given twice.

    Space around a pair is trimmed, the first `=` splits it, and the case of a key does not matter:
    some of AlipayHK's pages print spaces, some of its siblings other cases.
    """
    pairs: dict[str, str] = {}
    for part in value.split(","):
        key, equals, text = part.strip().partition("=")
        if not equals or not key or key.lower() in pairs:
            raise ValueError("not key=value pairs")
        pairs[key.lower()] = text
    return pairs
