"""Diagnosis of the envelope-signed protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ..wire.endpoint import Endpoint
from ..wire.messages import RawRequest, SealedResponse, VerifiedRequest
from ..wire.strict_json import JsonError, member_bytes, write_json
from .claims import Claim, body_fault, object_or_empty
from .mistakes import Diagnosis, Edit, Guess

_MARK: Final = b',"signature":"'


def claim(_: Endpoint, raw: RawRequest) -> Claim:
    """Split the envelope into its members, and read them."""
    read_fault = body_fault(raw.body, "as received")
    try:
        members = member_bytes(raw.body)
    except JsonError as error:
        return Claim(cut_fault=f"the body cannot be split into members: {error}", read_fault=read_fault)
    cut = dict(members)
    fault = "two members of the envelope have the same name" if len(cut) != len(members) else ""
    for name in ("signature", "request"):
        fault = fault if name in cut else f"the envelope has no member {name}"
    content = cut.get("request", b"")
    envelope = object_or_empty(content)
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
        read_fault=read_fault,
    )


def guesses(_: RawRequest, claim: Claim) -> Iterator[Guess]:
    """Yield the mistakes that signers of an envelope make."""
    envelope = {"head": dict(claim.head), "body": dict(claim.body)}
    yield (
        "it covers the outer object instead of the value of request",
        b'{"request":' + claim.content + b"}",
    )
    yield "it covers the body without the head", write_json(envelope["body"])
    yield "it covers compact JSON, but the request was sent in another form", write_json(envelope)
    for ascii_only in (True, False):
        spaced = json.dumps(envelope, ensure_ascii=ascii_only)
        yield "it covers JSON with spaces, but the request was sent in another form", spaced.encode()
        compact = json.dumps(envelope, ensure_ascii=ascii_only, sort_keys=True, separators=(",", ":"))
        yield (
            "it covers JSON with sorted members, but the request was sent in another order",
            compact.encode(),
        )


def with_signatures(response: SealedResponse, edits: tuple[Edit, ...]) -> SealedResponse:
    """Replace the member signature by one member for each edit of it."""
    content, _, rest = response.body.rpartition(_MARK)
    signature = rest.removesuffix(b'"}').decode()
    lines = b"".join(_MARK + edit(signature).encode() + b'"' for edit in edits)
    return replace(response, body=content + lines + b"}")


def to_another_request(request: VerifiedRequest) -> VerifiedRequest:
    """Return the request with another reqMsgId, which its response then repeats."""
    return replace(request, head={**request.head, "reqMsgId": "another-request"})


def _text(data: bytes) -> str:
    try:
        text = json.loads(data)
    except ValueError:
        return ""
    return text if isinstance(text, str) else ""


DIAGNOSIS: Final = Diagnosis(
    claim=claim,
    guesses=guesses,
    with_signatures=with_signatures,
    to_another_request=to_another_request,
    has_encryption=False,
    names_key=False,
)
