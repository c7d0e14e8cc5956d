"""The envelope-signed protocol ("API structure v1"): metadata and signature inside the JSON body.

    {"request":{"head":{…},"body":{…}},"signature":"…"}
    {"response":{"head":{…},"body":{…}},"signature":"…"}

is what travels; the exact text of the value of `request` or `response` is what is signed. The receiver
cuts that text out of the raw bytes and never writes it again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from .. import crypto
from ..clock import response_time_of, time_text
from ..crypto import CryptoError
from ..endpoint import Endpoint
from ..errors import CallError, Malformed, Replayed, SignatureInvalid, Truncated
from ..messages import (
    JSON_CONTENT_TYPE,
    RawRequest,
    RawResponse,
    SealedRequest,
    SealedResponse,
    VerifiedRequest,
    VerifiedResponse,
)
from ..strict_json import IncompleteJson, JsonError, member_bytes, read_object, write_json
from .result_body import result_of
from .unsigned import unsigned

RESERVE: Final = "{}"
_HEADERS: Final = (("Content-Type", JSON_CONTENT_TYPE),)


def request_content(endpoint: Endpoint, request_id: str, time: str, body: bytes) -> bytes:
    """Return the value of `request`: the exact bytes that are signed."""
    head = {
        "clientId": endpoint.client_id,
        "function": endpoint.function,
        "reserve": RESERVE,
        "reqTime": time,
        "version": endpoint.version,
        "reqMsgId": request_id,
    }
    return _content(head, body)


def response_content(endpoint: Endpoint, request: VerifiedRequest, time: str, body: bytes) -> bytes:
    """Return the value of `response`: the exact bytes that are signed."""
    head = {
        "clientId": request.client_id,
        "function": request.head.get("function"),
        "reserve": RESERVE,
        "respTime": time,
        "version": endpoint.version,
        "reqMsgId": request.head.get("reqMsgId"),
    }
    return _content(head, body)


def sealed_envelope(member: str, content: bytes, signature: bytes) -> bytes:
    """Return the whole body: the signed content beside its signature."""
    text = crypto.url_base64_text(signature).encode()
    return b'{"' + member.encode() + b'":' + content + b',"signature":"' + text + b'"}'


def seal_request(
    endpoint: Endpoint,
    request_id: str,
    body: bytes,
    *,
    now: datetime,
    random_bytes: Callable[[int], bytes],  # noqa: ARG001  (this protocol encrypts nothing)
) -> SealedRequest:
    """Sign; `body` is the business content as JSON."""
    content = request_content(endpoint, request_id, time_text(now), body)
    signature = crypto.sign(endpoint.keys.signing, content)
    return SealedRequest(
        path=endpoint.path,
        headers=_HEADERS,
        body=sealed_envelope("request", content, signature),
    )


def unseal_response(
    endpoint: Endpoint,
    request_id: str,
    raw: RawResponse,
    *,
    sent_at: datetime,
    now: datetime,
) -> VerifiedResponse:
    """Verify the very bytes, then read; raise an error of `errors` otherwise."""
    members = _members(raw)
    if "signature" not in (name for name, _ in members):
        raise unsigned(raw, "the answer has no member signature")
    head, body = _open(endpoint, members, "response", huge_as_infinite=True)
    if head.get("reqMsgId") != request_id or head.get("function") != endpoint.function:
        raise Replayed("the answer is to another request")
    if head.get("clientId", endpoint.client_id) != endpoint.client_id:
        raise Replayed("the answer is to another client id")
    # Before the result: what cannot be the answer to this request need not be a good one either.
    response_time = _response_time(endpoint, head, sent_at=sent_at, now=now)
    return VerifiedResponse(
        http_status=raw.http_status,
        result=result_of(body),
        body=body,
        response_time=response_time,
        tracer_id=raw.tracer_id,
    )


def unseal_request(endpoint: Endpoint, raw: RawRequest) -> VerifiedRequest:
    """Verify and read a request; raise SignatureInvalid or Malformed otherwise."""
    try:
        members = member_bytes(raw.body)
    except JsonError as error:
        raise Malformed(f"the envelope: {error}") from None
    head, body = _open(endpoint, members, "request")
    client_id = head.get("clientId")
    if not isinstance(client_id, str):
        raise Malformed("the head has no clientId")
    return VerifiedRequest(client_id=client_id, head=head, body=body)


def seal_response(
    endpoint: Endpoint,
    request: VerifiedRequest,
    body: Mapping[str, object],
    *,
    now: datetime,
    random_bytes: Callable[[int], bytes],  # noqa: ARG001  (this protocol encrypts nothing)
) -> SealedResponse:
    """Sign an answer that echoes the request's head."""
    content = response_content(endpoint, request, time_text(now), write_json(body))
    signature = crypto.sign(endpoint.keys.signing, content)
    return SealedResponse(headers=_HEADERS, body=sealed_envelope("response", content, signature))


def _content(head: Mapping[str, object], body: bytes) -> bytes:
    return b'{"head":' + write_json(head) + b',"body":' + body + b"}"


def _members(raw: RawResponse) -> list[tuple[str, bytes]]:
    """Cut an answer into its members; one that is no JSON object carries no signature."""
    cause: CallError
    try:
        return member_bytes(raw.body)
    except IncompleteJson:
        # Only a body that ended with its connection can have been cut short unnoticed by HTTP.
        cause = (
            unsigned(raw, "the answer is no whole JSON object")
            if raw.end_announced or not raw.body
            else Truncated("the answer ends inside its JSON")
        )
    except JsonError:
        cause = unsigned(raw, "the answer is no JSON object")
    raise cause


def _open(
    endpoint: Endpoint,
    members: list[tuple[str, bytes]],
    member: str,
    *,
    huge_as_infinite: bool = False,
) -> tuple[dict[str, object], dict[str, object]]:
    """Verify the content over its exact bytes, and read it; return head and body."""
    if max(Counter(name for name, _ in members).values(), default=0) > 1:
        raise Malformed("two members of the envelope have one name")
    cut = dict(members)
    content = _verify(endpoint, cut.get(member), cut.get("signature"))
    try:
        envelope = read_object(content, huge_as_infinite=huge_as_infinite)
    except JsonError as error:
        raise Malformed(str(error)) from None
    head, body = envelope.get("head", {}), envelope.get("body")
    if not isinstance(head, dict) or not isinstance(body, dict):
        raise Malformed("the envelope has no head or body")
    return head, body


def _verify(endpoint: Endpoint, content: bytes | None, signature_json: bytes | None) -> bytes:
    """Return `content` if any known key, newest first, verifies it: an envelope names no version."""
    if content is None or signature_json is None:
        raise SignatureInvalid("the signature, or what it signs, is absent")
    try:
        if not signature_json.startswith(b'"'):
            raise CryptoError("not a string")
        signature = crypto.url_base64_bytes(json.loads(signature_json))
    except (ValueError, CryptoError):
        raise SignatureInvalid("the signature is not base64") from None
    cause = CryptoError("there is no key to verify with")
    for key in endpoint.keys.verifying.values():
        try:
            return crypto.verify(key, signature, content)
        except CryptoError as error:
            cause = error
    raise SignatureInvalid(str(cause))


def _response_time(
    endpoint: Endpoint, head: Mapping[str, object], *, sent_at: datetime, now: datetime
) -> datetime | None:
    """Check `respTime` when present; AlipayHK's pages do not all show it."""
    time = head.get("respTime")
    if time is None:
        return None
    if not isinstance(time, str):
        raise Malformed("respTime is not a string")
    return response_time_of(time, sent_at=sent_at, now=now, window_s=endpoint.response_time_window_s)
