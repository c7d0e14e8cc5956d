"""Diagnosis of the header-signed protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ..wire.crypto import CryptoError
from ..wire.endpoint import Endpoint
from ..wire.messages import Headers, RawRequest, SealedResponse, VerifiedRequest
from ..wire.protocols.header_signed import REQUEST_TIME, content_to_sign, decrypt_body
from ..wire.protocols.header_text import header_pairs
from .claims import Claim, body_fault, object_or_empty
from .mistakes import Diagnosis, Edit, Guess


def claim(endpoint: Endpoint, raw: RawRequest) -> Claim:
    """Read the headers and the body; in `content`, a missing header is written as `<Its-Name>`."""
    client_id = raw.value("client-id")
    time = raw.value(REQUEST_TIME.lower()) or f"<{REQUEST_TIME}>"
    pairs = _pairs(raw.value("signature"))
    encrypted = bool(raw.values("encrypt"))
    decrypted = _decrypted(endpoint, raw)
    return Claim(
        client_id=client_id,
        content=content_to_sign(raw.path, client_id or "<Client-Id>", time, raw.body),
        signature=pairs.get("signature", ""),
        key_version=pairs.get("keyversion"),
        body=object_or_empty((decrypted or b"") if encrypted else raw.body),
        encrypted=encrypted,
        decrypted=decrypted,
        read_fault=_read_fault(raw, decrypted),
    )


def guesses(raw: RawRequest, claim: Claim) -> Iterator[Guess]:
    """Yield the mistakes that signers of a header-signed request make."""
    yield "it covers the body only", raw.body
    yield "it covers a line break after the content", claim.content + b"\n"
    yield "it covers CR LF instead of LF", claim.content.replace(b"\n", b"\r\n", 1)
    path, query, _ = raw.path.partition("?")
    if query:
        yield (
            "it covers the path without its query",
            claim.content.replace(raw.path.encode(), path.encode(), 1),
        )
    if claim.decrypted is not None:
        unencrypted = claim.content.removesuffix(raw.body) + claim.decrypted
        yield "it covers the body before encryption: encrypt first, then sign", unencrypted


def with_signatures(response: SealedResponse, edits: tuple[Edit, ...]) -> SealedResponse:
    """Replace the header Signature by one header for each edit of its signature."""
    headers: Headers = ()
    for name, line in response.headers:
        if name != "Signature":
            headers += ((name, line),)
            continue
        start, mark, signature = line.partition("signature=")
        headers += tuple((name, start + mark + edit(signature)) for edit in edits)
    return replace(response, headers=headers)


def to_another_request(request: VerifiedRequest) -> VerifiedRequest:
    """Return the request with another client id, which its response then has in Client-Id."""
    return replace(request, client_id=f"{request.client_id}-OTHER")


def _pairs(value: str) -> dict[str, str]:
    try:
        return header_pairs(value)
    except ValueError:
        return {}


def _decrypted(endpoint: Endpoint, raw: RawRequest) -> bytes | None:
    encrypt_lines, encryption = raw.values("encrypt"), endpoint.protocol.encryption
    if not encrypt_lines or encryption is None:
        return None
    try:
        return decrypt_body(encryption, endpoint.keys, encrypt_lines[0], raw.body)
    except CryptoError:
        return None


def _read_fault(raw: RawRequest, decrypted: bytes | None) -> str:
    lines = len(raw.values("encrypt"))
    if lines > 1:
        return "there is more than one header Encrypt"
    if lines and decrypted is None:
        return "the body cannot be decrypted: its Encrypt header, AES key, AES profile or base64 is wrong"
    return body_fault(raw.body, "as received") if decrypted is None else body_fault(decrypted, "decrypted")


DIAGNOSIS: Final = Diagnosis(
    claim=claim,
    guesses=guesses,
    with_signatures=with_signatures,
    to_another_request=to_another_request,
    has_encryption=True,
    names_key=True,
)
