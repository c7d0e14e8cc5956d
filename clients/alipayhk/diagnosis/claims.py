"""What a request says of itself before anything in it is known to be true."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..wire.crypto import CryptoError
from ..wire.endpoint import Endpoint
from ..wire.messages import RawRequest, VerifiedRequest, header_values
from ..wire.protocols import ENVELOPE_SIGNED, HEADER_SIGNED
from ..wire.protocols.header_signed import REQUEST_TIME, content_to_sign, decrypt_body
from ..wire.protocols.header_text import header_pairs
from ..wire.strict_json import JsonError, member_bytes, read_object


@dataclass(frozen=True, slots=True)
class Claim:
    """A request as far as it can be read; empty where it cannot."""

    client_id: str = ""
    content: bytes = b""
    """The exact bytes that its signature should cover."""
    signature: str = ""
    """Its signature as it came: base64, perhaps percent-encoded."""
    key_version: str | None = None
    """The keyVersion that it names; None where it names none."""
    body: Mapping[str, object] = field(default_factory=dict)
    head: Mapping[str, object] = field(default_factory=dict)
    encrypted: bool = False
    decrypted: bytes | None = None
    """The body in the clear, where it came encrypted and can be decrypted."""
    cut_fault: str = ""
    """Why an envelope cannot be cut into what is signed and its signature; empty when it can."""

    def believed(self) -> VerifiedRequest:
        """Pass for verified, so that a request which is refused can be answered in its own terms."""
        return VerifiedRequest(
            client_id=self.client_id, body=self.body, head=self.head, encrypted=self.encrypted
        )


def header_signed_claim(endpoint: Endpoint, raw: RawRequest) -> Claim:
    """Read the headers, and the body under them; a header that is missing shows as `<Its-Name>`."""
    client_id = next(iter(header_values(raw.headers, "Client-Id")), "")
    time = next(iter(header_values(raw.headers, REQUEST_TIME)), "") or f"<{REQUEST_TIME}>"
    pairs = _pairs(next(iter(header_values(raw.headers, "Signature")), ""))
    encrypt_lines = header_values(raw.headers, "Encrypt")
    decrypted = _decrypted(endpoint, encrypt_lines[0], raw.body) if encrypt_lines else None
    return Claim(
        client_id=client_id,
        content=content_to_sign(raw.path, client_id or "<Client-Id>", time, raw.body),
        signature=pairs.get("signature", ""),
        key_version=pairs.get("keyversion"),
        body=_object((decrypted or b"") if encrypt_lines else raw.body),
        encrypted=bool(encrypt_lines),
        decrypted=decrypted,
    )


def envelope_signed_claim(_: Endpoint, raw: RawRequest) -> Claim:
    """Cut the envelope, and read what is in it."""
    try:
        members = member_bytes(raw.body)
    except JsonError as error:
        return Claim(cut_fault=f"the body cannot be cut into members: {error}")
    cut = dict(members)
    fault = "two members of the envelope have one name" if len(cut) != len(members) else ""
    for name in ("signature", "request"):
        fault = fault if name in cut else f"the envelope has no member {name}"
    content = cut.get("request", b"")
    envelope = _object(content)
    head, body = envelope.get("head"), envelope.get("body")
    head = head if isinstance(head, dict) else {}
    client_id = head.get("clientId")
    return Claim(
        client_id=client_id if isinstance(client_id, str) else "",
        content=content,
        signature=_text(cut.get("signature", b"")),
        body=body if isinstance(body, dict) else {},
        head=head,
        cut_fault=fault,
    )


def _pairs(value: str) -> dict[str, str]:
    try:
        return header_pairs(value)
    except ValueError:
        return {}


def _decrypted(endpoint: Endpoint, encrypt_line: str, body: bytes) -> bytes | None:
    try:
        return decrypt_body(endpoint, encrypt_line, body)
    except CryptoError:
        return None


def _object(data: bytes) -> dict[str, object]:
    try:
        return read_object(data)
    except JsonError:
        return {}


def _text(data: bytes) -> str:
    try:
        text = json.loads(data)
    except ValueError:
        return ""
    return text if isinstance(text, str) else ""


CLAIMS: Final[dict[str, Callable[[Endpoint, RawRequest], Claim]]] = {
    HEADER_SIGNED: header_signed_claim,
    ENVELOPE_SIGNED: envelope_signed_claim,
}
