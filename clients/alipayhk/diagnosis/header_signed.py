"""Diagnosis of the header-signed protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from ..wire.messages import Headers, SealedResponse, VerifiedRequest
from ..wire.protocols.header_signed import REQUEST_TIME, RESPONSE_TIME
from ..wire.protocols.header_text import SIGNATURE_ALGORITHM, header_pairs
from . import byte_forms, content_forms
from .causes import Cause
from .claims import Claim, Decrypt, Message, body_fault, missing_end, object_or_empty, other_headers
from .drafts import Draft, Frame, Hypothesis, Variant, Variants
from .paths import other_paths
from .protocol_row import Edit, Known, ProtocolRow
from .times import far_texts, other_texts


def claim(message: Message, decrypt: Decrypt) -> Claim:
    """Read the headers and the body; in the draft, a missing header is written as `<Its-Name>`."""
    raw, time_name = message.raw, RESPONSE_TIME if message.is_response else REQUEST_TIME
    client_id, time = raw.value("client-id"), raw.value(time_name.lower())
    pairs = _pairs(raw.value("signature"), leniently=message.is_response)
    encrypt_lines = raw.values("encrypt")
    decrypted = decrypt(encrypt_lines[0], raw.body) if encrypt_lines else None
    frame = Frame(message.path, client_id or "<Client-Id>", time or f"<{time_name}>")
    return Claim(
        client_id=client_id,
        draft=Draft(raw.body, frame),
        signature=pairs.get("signature", ""),
        leniently=message.is_response,
        key_version=pairs.get("keyversion"),
        body=object_or_empty((decrypted or b"") if encrypt_lines else raw.body),
        encrypted=bool(encrypt_lines),
        decrypted=decrypted,
        read_fault=_read_fault(message, decrypted),
        refusal=_refusal(message, pairs, time_name),
        cut_off=missing_end(message),
        others=other_headers(message),
    )


def hypotheses(claim: Claim, known: Known) -> tuple[Hypothesis, ...]:
    """Return the mistakes that signers of a header-signed message make."""
    headers = claim.others
    times = [value for name, value in headers.items() if "time" in name or "date" in name]
    ids = [value for name, value in headers.items() if "client" in name or "partner" in name]

    def decrypted(draft: Draft) -> Iterator[Variant]:
        if claim.decrypted is not None:
            yield "the body before encryption", replace(draft, body=claim.decrypted)

    def client_ids(text: str) -> Iterator[tuple[str, str]]:
        yield from (
            ("an empty client id", ""),
            ("the client id in lower case", text.lower()),
            ("the client id in upper case", text.upper()),
            ("the client id with a space after it", f"{text} "),
            ("the client id with a space before it", f" {text}"),
            ("the client id without spaces around it", text.strip()),
            *(("another client id", other) for other in (*known.client_ids, *ids, *_ids_in(claim.body))),
        )

    return (
        Hypothesis(Cause.SIGNED_BEFORE_ENCRYPTION, decrypted),
        Hypothesis(Cause.COMPRESSED, byte_forms.compressed),
        *content_forms.BEFORE,
        *content_forms.FORMS,
        Hypothesis(Cause.COMPRESSED, byte_forms.deflated),
        Hypothesis(Cause.PATH, _framed("path", lambda text: other_paths(text, headers, known.hosts))),
        Hypothesis(Cause.CLIENT_ID, _framed("client_id", client_ids)),
        Hypothesis(Cause.TIME, _framed("time", lambda text: other_texts(text, times))),
        Hypothesis(Cause.LINE_ENDINGS, byte_forms.first_line_ending),
        Hypothesis(Cause.ENVELOPE_PART, _parts),
        *content_forms.AFTER,
        Hypothesis(Cause.TIME, _framed("time", far_texts), alone=True),
        *content_forms.LAST,
    )


def _framed(name: str, texts: Callable[[str], Iterator[tuple[str, str]]]) -> Variants:
    """Return the variants with other texts for one part of the frame."""

    def variants(draft: Draft) -> Iterator[Variant]:
        if draft.frame is not None:
            for phrase, text in texts(getattr(draft.frame, name)):
                yield phrase, replace(draft, frame=replace(draft.frame, **{name: text}))

    return variants


def _parts(draft: Draft) -> Iterator[Variant]:
    frame = draft.frame
    if frame is None:
        return
    yield "the body alone", Draft(draft.body)
    path, client_id, time = frame.path, frame.client_id, frame.time
    for phrase, before in (
        ("the content without its first line", f"{client_id}.{time}."),
        ("the content without client id and time", f"POST {path}\n"),
        ("the content without the time", f"POST {path}\n{client_id}."),
        ("the content without the client id", f"POST {path}\n{time}."),
        ("the content without POST", f"{path}\n{client_id}.{time}."),
    ):
        yield phrase, Draft(before.encode("utf-8", "surrogateescape") + draft.body)
    yield "the content without the body", Draft(frame.text().encode("utf-8", "surrogateescape"))
    without_dot = frame.text().removesuffix(".").encode("utf-8", "surrogateescape")
    yield "the content without the body and the dot before it", Draft(without_dot)


def _ids_in(body: object) -> list[str]:
    members = body.items() if isinstance(body, dict) else ()
    return [value for name, value in members if isinstance(value, str) and name.lower().endswith("id")]


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


def _pairs(value: str, *, leniently: bool) -> dict[str, str]:
    try:
        return header_pairs(value, leniently=leniently)
    except ValueError:
        return {}


def _refusal(message: Message, pairs: dict[str, str], time_name: str) -> str:
    for name in ("Client-Id", time_name, "Signature"):
        values = message.raw.values(name.lower())
        if len(values) != 1 or not values[0]:
            return (
                f"has {len(values)} headers {name}" if len(values) != 1 else f"has an empty header {name}"
            )
    if not pairs:
        return "has a header Signature that is not key=value pairs"
    if pairs.get("algorithm", SIGNATURE_ALGORITHM).upper() != SIGNATURE_ALGORITHM:
        return "names an algorithm other than RSA256"
    return ""


def _read_fault(message: Message, decrypted: bytes | None) -> str:
    lines, body = len(message.raw.values("encrypt")), message.raw.body
    if lines > 1:
        return "there is more than one header Encrypt"
    if lines and decrypted is None:
        return "the body cannot be decrypted: its Encrypt header, AES key, AES profile or base64 is wrong"
    return body_fault(body, "as received") if decrypted is None else body_fault(decrypted, "decrypted")


ROW: Final = ProtocolRow(
    claim=claim,
    hypotheses=hypotheses,
    with_signatures=with_signatures,
    to_another_request=to_another_request,
    has_encryption=True,
    names_key=True,
)
