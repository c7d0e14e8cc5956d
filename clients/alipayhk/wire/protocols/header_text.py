"""The values of the headers Signature and Encrypt: `key=value,key=value`.

    Signature: algorithm=RSA256,keyVersion=1,signature=<percent-encoded base64>
    Encrypt: algorithm=RSA_AES,keyVersion=1,symmetricKey=<percent-encoded base64>

Source: https://docs.alipay.hk/alipayhkdocs/hk/gcmc/apifund
"""

from __future__ import annotations

import re
from typing import Final

from .. import crypto, lenient

SIGNATURE_ALGORITHM: Final = "RSA256"
ENCRYPTION_ALGORITHM: Final = "RSA_AES"
SHORT_ENCRYPTION_ALGORITHM: Final = "RSA"
"""RSA_AES as https://docs.alipay.hk/alipayhkdocs/hk/auto_earn/Encrypt_and_decrypt prints it."""

_USUAL_FORM: Final = re.compile(
    r"algorithm=([A-Za-z0-9_]++),keyVersion=([A-Za-z0-9_.-]++),(signature|symmetricKey)="
    r"([A-Za-z0-9+/=]*+(?:%(?!0[AaDd])[A-Za-z0-9+/=]*+)*+)"
)
"""Without spaces and line breaks, so that nothing is to be removed from it."""


def signature_header(key_version: str, signature: bytes) -> str:
    """Return the value of the header Signature."""
    text = crypto.url_base64_text(signature)
    return f"algorithm={SIGNATURE_ALGORITHM},keyVersion={key_version},signature={text}"


def encrypt_header(key_version: str, wrapped_key: bytes) -> str:
    """Return the value of the header Encrypt."""
    text = crypto.url_base64_text(wrapped_key)
    return f"algorithm={ENCRYPTION_ALGORITHM},keyVersion={key_version},symmetricKey={text}"


def header_pairs(value: str, *, leniently: bool = False) -> dict[str, str]:
    """Parse `key=value,key=value`; raise ValueError for anything else, or if a key occurs twice.

    Spaces around a pair are removed, because some of AlipayHK's pages print them. The first `=` separates
    key and value. Keys are returned in lower case, because siblings of AlipayHK write them in other cases.
    `leniently` also reads the variants of `lenient.header_value`.
    """
    if match := _USUAL_FORM.fullmatch(value):
        algorithm, version, name, text = match.groups()
        return {"algorithm": algorithm, "keyversion": version, name.lower(): text}
    value = lenient.header_value(value) if leniently else value
    pairs: dict[str, str] = {}
    for part in value.split(","):
        key, equals, text = part.strip().partition("=")
        if not equals or not key or key.lower() in pairs:
            raise ValueError("not key=value pairs")
        pairs[key.lower()] = text
    return pairs
