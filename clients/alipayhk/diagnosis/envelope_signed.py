"""Diagnosis of the envelope-signed protocol."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from ..wire import lenient
from ..wire.messages import SealedResponse, VerifiedRequest
from ..wire.strict_json import JsonError, member_bytes
from . import content_forms
from .byte_forms import inflated_as
from .causes import Cause
from .claims import Claim, Decrypt, Message, body_fault, missing_end, object_or_empty, other_headers
from .drafts import Draft, Hypothesis, Variant, Variants
from .protocol_row import Edit, Known, ProtocolRow
from .times import far_texts, other_texts

_MARK: Final = b',"signature":"'


def claim(message: Message, _: Decrypt) -> Claim:
    """Split the envelope into its members, and read them."""
    received = message.raw.body
    data = lenient.json_bytes(received) if message.is_response else received
    signed_member = "response" if message.is_response else "request"
    cut, fault = _cut(data, signed_member)
    wrapping = None
    if fault and (wrapping := _wrapping(data)) is not None:
        cut = _cut(wrapping[2], signed_member)[0]
    content = cut.get(signed_member, b"")
    envelope = object_or_empty(content)
    head, body = envelope.get("head"), envelope.get("body")
    head = head if isinstance(head, dict) else {}
    client_id = head.get("clientId")
    return Claim(
        client_id=client_id if isinstance(client_id, str) else "",
        draft=Draft(received if wrapping else content),
        signature=_text(cut.get("signature", b"")),
        leniently=message.is_response,
        body=body if isinstance(body, dict) else {},
        head=head,
        cut_fault=fault,
        read_fault=body_fault(received, "as received"),
        unwrapped=(*wrapping[:2], content) if wrapping else None,
        cut_off=missing_end(message),
        others=other_headers(message),
    )


def _cut(data: bytes, signed_member: str) -> tuple[dict[str, bytes], str]:
    """Split an envelope into its members; return also why that fails, or nothing."""
    try:
        members = member_bytes(data)
    except JsonError as error:
        return {}, f"the body cannot be split into members: {error}"
    cut = dict(members)
    fault = "two members of the envelope have the same name" if len(cut) != len(members) else ""
    for name in ("signature", signed_member):
        fault = fault if name in cut else f"the envelope has no member {name}"
    return cut, fault


def _wrapping(data: bytes) -> tuple[Cause, str, bytes] | None:
    """Return what hides an envelope from its receiver: cause, noun phrase, and the data without it."""
    without_mark = lenient.json_bytes(data)
    if without_mark != data:
        return Cause.BOM, "the content, but a byte order mark was sent before it", without_mark
    inflated = inflated_as(data, "gzip") or inflated_as(data, "deflate")
    return (Cause.COMPRESSED, "the content before compression", inflated) if inflated else None


def hypotheses(claim: Claim, known: Known) -> tuple[Hypothesis, ...]:
    """Return the mistakes that signers of an envelope make."""
    headers = [value for name, value in claim.others.items() if "time" in name or "date" in name]

    unwrapped = claim.unwrapped or (Cause.COMPRESSED, "", claim.content)

    def client_ids(text: str) -> Iterator[tuple[str, str]]:
        headers = (value for name, value in claim.others.items() if "client" in name)
        values = (value for value in claim.body.values() if isinstance(value, str))
        yield "an empty client id", ""
        for form in (str.lower, str.upper, str.strip):
            yield f"the client id in another form ({form.__name__})", form(text)
        for other in (*known.client_ids, *headers, *values):
            yield "another client id", other

    return (
        Hypothesis(unwrapped[0], lambda draft: iter(((unwrapped[1], replace(draft, body=unwrapped[2])),))),
        *content_forms.BEFORE,
        Hypothesis(Cause.CLIENT_ID, _member("clientId", client_ids)),
        Hypothesis(Cause.TIME, _member("re(?:q|sp)Time", lambda text: other_texts(text, headers))),
        *content_forms.FORMS,
        Hypothesis(Cause.ENVELOPE_PART, _parts(claim)),
        *content_forms.FORMS[:1],
        *content_forms.AFTER,
        Hypothesis(Cause.TIME, _member("re(?:q|sp)Time", far_texts), alone=True),
        *content_forms.LAST,
    )


def _member(name: str, texts: Callable[[str], Iterator[tuple[str, str]]]) -> Variants:
    """Return the variants with other texts for the first member whose name matches a pattern."""
    pattern = re.compile(rf'("{name}"\s*:\s*")([^"\\]*)(?=")'.encode())

    def variants(draft: Draft) -> Iterator[Variant]:
        if found := pattern.search(draft.body):
            start, end = draft.body[: found.start(2)], draft.body[found.end(2) :]
            for phrase, text in texts(found[2].decode("utf-8", "replace")):
                written = json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "surrogateescape")
                yield phrase, replace(draft, body=start + written + end)

    return variants


def _parts(claim: Claim) -> Variants:
    signed_member = b"response" if claim.leniently else b"request"

    def parts(draft: Draft) -> Iterator[tuple[str, bytes]]:
        content = draft.body
        named = b'"' + signed_member + b'":' + content
        yield "the outer object", b"{" + named + b"}"
        yield "the outer object with an empty signature", b"{" + named + b',"signature":""}'
        yield "the outer object with the signature null", b"{" + named + b',"signature":null}'
        yield "the value with the name of its member", named
        if content[:1] + content[-1:] == b"{}":
            yield "the content without its braces", content[1:-1]
        try:
            cut = dict(member_bytes(content))
        except JsonError:
            return
        head, body = cut.get("head", b""), cut.get("body", b"")
        yield "the body without the head", body
        yield "the head without the body", head
        yield "head and body without names", head + body
        yield "the head alone in an object", b'{"head":' + head + b"}"
        yield "the body alone in an object", b'{"body":' + body + b"}"

    return lambda draft: ((phrase, Draft(data)) for phrase, data in parts(draft))


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


ROW: Final = ProtocolRow(
    claim=claim,
    hypotheses=hypotheses,
    with_signatures=with_signatures,
    to_another_request=to_another_request,
    has_encryption=False,
    names_key=False,
)
