"""Recognise what was signed instead of what should have been: the mistakes that people make."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ..wire import crypto
from ..wire.crypto import CryptoError
from ..wire.endpoint import Endpoint
from ..wire.messages import RawRequest
from ..wire.protocols import ENVELOPE_SIGNED, HEADER_SIGNED
from ..wire.strict_json import write_json
from .claims import Claim

Guess = tuple[str, bytes]
"""A mistake, and what is signed when it is made."""


def mistake(endpoint: Endpoint, raw: RawRequest, claim: Claim) -> str:
    """Say what the signature is of, when that can be told; else nothing."""
    try:
        signature = crypto.url_base64_bytes(claim.signature)
    except CryptoError:
        return ""
    keys = endpoint.keys.verifying
    named = claim.key_version or next(iter(keys))
    for version, key in keys.items():
        if version != named and _is_signature(key, signature, claim.content):
            return f"it is made with the key of keyVersion {version}"
    for sentence, content in GUESSES[endpoint.protocol](raw, claim):
        if any(_is_signature(key, signature, content) for key in keys.values()):
            return sentence
    return ""


def header_signed_guesses(raw: RawRequest, claim: Claim) -> Iterator[Guess]:
    """Guess at a header-signed request."""
    yield "it covers the body alone", raw.body
    yield "it covers a line break after the content", claim.content + b"\n"
    yield "it covers CR LF in place of the line feed", claim.content.replace(b"\n", b"\r\n", 1)
    path, query, _ = raw.path.partition("?")
    if query:
        yield (
            "it covers the path without its query",
            claim.content.replace(raw.path.encode(), path.encode(), 1),
        )
    if claim.decrypted is not None:
        unencrypted = claim.content.removesuffix(raw.body) + claim.decrypted
        yield "it covers the body before encryption: encrypt first, then sign", unencrypted


def envelope_signed_guesses(_: RawRequest, claim: Claim) -> Iterator[Guess]:
    """Guess at an envelope-signed request."""
    envelope = {"head": dict(claim.head), "body": dict(claim.body)}
    yield (
        "it covers the object around request, not the value of request",
        b'{"request":' + claim.content + b"}",
    )
    yield "it covers the body without the head", write_json(envelope["body"])
    yield "it covers compact JSON, and what was sent is written otherwise", write_json(envelope)
    for ascii_only in (True, False):
        spaced = json.dumps(envelope, ensure_ascii=ascii_only)
        yield "it covers JSON with spaces, and what was sent is written otherwise", spaced.encode()
        compact = json.dumps(envelope, ensure_ascii=ascii_only, sort_keys=True, separators=(",", ":"))
        yield "it covers JSON with sorted members, and what was sent is in another order", compact.encode()


def _is_signature(key: RSAPublicKey, signature: bytes, content: bytes) -> bool:
    try:
        crypto.verify(key, signature, content)
    except CryptoError:
        return False
    return True


GUESSES: Final[dict[str, Callable[[RawRequest, Claim], Iterator[Guess]]]] = {
    HEADER_SIGNED: header_signed_guesses,
    ENVELOPE_SIGNED: envelope_signed_guesses,
}
