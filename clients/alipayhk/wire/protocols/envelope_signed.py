"""The envelope-signed protocol ("API structure v1"): metadata and signature inside the JSON body.

    {"request":{"head":{…},"body":{…}},"signature":"…"}
    {"response":{"head":{…},"body":{…}},"signature":"…"}

Source: https://docs.alipay.hk/alipayhkdocs/hk/a_points_display/api_structure_v1. The signature covers the
exact text of the value of `request` or `response`, in the order sent:
https://docs.alipay.hk/alipayhkdocs/hk/a_points_display/pre_sign_string_v1. The receiver cuts that text out
of the received bytes, because JSON written again may differ from what was signed.

No page documents encryption for this protocol.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final

from .. import crypto, lenient
from ..clock import response_time_of, time_text
from ..crypto import CryptoError
from ..endpoint import Endpoint
from ..errors import CallError, Malformed, Replayed, SignatureInvalid, Truncated
from ..keys import Keys
from ..messages import (
    JSON_CONTENT_TYPE,
    PlainRequest,
    PlainResponse,
    RawRequest,
    RawResponse,
    SealedRequest,
    SealedResponse,
    VerifiedRequest,
    VerifiedResponse,
)
from ..strict_json import IncompleteJson, JsonError, member_bytes, read_object, write_json
from .result_body import verified_response
from .unsigned import unsigned

RESERVE: Final = "{}"
_HEADERS: Final = (("Content-Type", JSON_CONTENT_TYPE),)


@dataclass(frozen=True, slots=True)
class EnvelopeSigned:
    """The protocol with its settings."""

    function: str
    """The name of the API in the head: account.bind is `alipay.intl.merchant.account.bind`."""
    version: str
    """The version in the head."""

    name: ClassVar[str] = "envelope_signed"
    encryption: ClassVar[None] = None

    @property
    def required_head(self) -> Mapping[str, str]:
        """Return the members of a request's head that are the same in every request."""
        return {"function": self.function, "version": self.version}

    def seal_request(self, endpoint: Endpoint, request: PlainRequest) -> SealedRequest:
        """Sign a request."""
        content = self.request_content(endpoint, request)
        signature = crypto.sign(endpoint.keys.signing, content)
        return SealedRequest(
            path=endpoint.path,
            headers=_HEADERS,
            body=sealed_envelope("request", content, signature),
        )

    def unseal_response(
        self, endpoint: Endpoint, request: PlainRequest, raw: RawResponse, *, now: datetime
    ) -> VerifiedResponse:
        """Verify the received bytes and read them; raise an error of `errors` otherwise.

        The response must repeat `reqMsgId` and `function`: this ties it to the request.
        """
        members = _members(raw, now)
        if "signature" not in (name for name, _ in members):
            raise unsigned(raw, "the response has no member signature", now)
        head, body = _open(endpoint.keys, members, "response", leniently=True)
        if head.get("reqMsgId") != request.request_id or head.get("function") != self.function:
            raise Replayed("the response belongs to another request")
        if head.get("clientId", endpoint.client_id) != endpoint.client_id:
            raise Replayed("the response belongs to another client id")
        # Check the time before the result: a response to another request need not have a valid result.
        response_time = _response_time(head, request, now=now, window_s=endpoint.response_time_window_s)
        return verified_response(raw, body, response_time)

    def unseal_request(self, endpoint: Endpoint, raw: RawRequest) -> VerifiedRequest:
        """Verify and read a request; raise SignatureInvalid or Malformed otherwise."""
        try:
            members = member_bytes(raw.body)
        except JsonError as error:
            raise Malformed(f"the envelope: {error}") from None
        head, body = _open(endpoint.keys, members, "request")
        client_id = head.get("clientId")
        if not isinstance(client_id, str):
            raise Malformed("the head has no clientId")
        return VerifiedRequest(client_id=client_id, head=head, body=body)

    def seal_response(
        self, endpoint: Endpoint, request: VerifiedRequest, response: PlainResponse
    ) -> SealedResponse:
        """Sign a response whose head repeats the request's `function` and `reqMsgId`."""
        content = self.response_content(request, response)
        signature = crypto.sign(endpoint.keys.signing, content)
        return SealedResponse(headers=_HEADERS, body=sealed_envelope("response", content, signature))

    def request_content(self, endpoint: Endpoint, request: PlainRequest) -> bytes:
        """Return the value of `request`: the exact bytes that are signed."""
        head = {
            "clientId": endpoint.client_id,
            "function": self.function,
            "reserve": RESERVE,
            "reqTime": time_text(request.time),
            "version": self.version,
            "reqMsgId": request.request_id,
        }
        return _content(head, request.body)

    def response_content(self, request: VerifiedRequest, response: PlainResponse) -> bytes:
        """Return the value of `response`: the exact bytes that are signed."""
        head = {
            "clientId": request.client_id,
            "function": request.head.get("function"),
            "reserve": RESERVE,
            "respTime": time_text(response.time),
            "version": self.version,
            "reqMsgId": request.head.get("reqMsgId"),
        }
        return _content(head, write_json(response.body))


def sealed_envelope(member: str, content: bytes, signature: bytes) -> bytes:
    """Return the whole body: the signed content and its signature, which is URL-encoded base64."""
    text = crypto.url_base64_text(signature).encode()
    return b'{"' + member.encode() + b'":' + content + b',"signature":"' + text + b'"}'


def _content(head: Mapping[str, object], body: bytes) -> bytes:
    return b'{"head":' + write_json(head) + b',"body":' + body + b"}"


def _members(raw: RawResponse, now: datetime) -> list[tuple[str, bytes]]:
    """Cut a response into its members; raise Unsigned or Truncated if it is not a whole JSON object."""
    cause: CallError
    try:
        return member_bytes(lenient.json_bytes(raw.body))
    except IncompleteJson:
        # If HTTP announced the body's end, the body is complete and simply not JSON. A body that ends with
        # its connection may have been cut.
        cause = (
            unsigned(raw, "the response is not a complete JSON object", now)
            if raw.end_announced or not raw.body
            else Truncated("the response ends inside its JSON")
        )
    except JsonError:
        cause = unsigned(raw, "the response is not a JSON object", now)
    raise cause


def _open(
    keys: Keys,
    members: list[tuple[str, bytes]],
    member: str,
    *,
    leniently: bool = False,
) -> tuple[dict[str, object], dict[str, object]]:
    """Verify the exact bytes of a member, and read them; return head and body."""
    if max(Counter(name for name, _ in members).values(), default=0) > 1:
        raise Malformed("two members of the envelope have the same name")
    cut = dict(members)
    content = _verify(keys, cut.get(member), cut.get("signature"), leniently=leniently)
    try:
        envelope = read_object(content, huge_as_infinite=leniently)
    except JsonError as error:
        raise Malformed(str(error)) from None
    head, body = envelope.get("head", {}), envelope.get("body")
    if not isinstance(head, dict) or not isinstance(body, dict):
        raise Malformed("the envelope has no head or body")
    return head, body


def _verify(keys: Keys, content: bytes | None, signature_json: bytes | None, *, leniently: bool) -> bytes:
    """Return `content` if a known key, newest first, verifies it: an envelope names no key version."""
    if content is None or signature_json is None:
        raise SignatureInvalid("the signature or the signed member is missing")
    try:
        if not signature_json.startswith(b'"'):
            raise CryptoError("not a string")
        text = json.loads(signature_json)
        signature = crypto.url_base64_bytes(lenient.base64_text(text) if leniently else text)
    except (ValueError, CryptoError):
        raise SignatureInvalid("the signature is not base64") from None
    cause = CryptoError("no key to verify with is configured")
    for key in keys.verifying.values():
        try:
            return crypto.verify(key, signature, content)
        except CryptoError as error:
            cause = error
    raise SignatureInvalid(str(cause))


def _response_time(
    head: Mapping[str, object], request: PlainRequest, *, now: datetime, window_s: float
) -> datetime | None:
    """Return the checked `respTime`, or None if it is absent: not all of AlipayHK's pages show it."""
    time = head.get("respTime")
    if time is None:
        return None
    return response_time_of(time, sent_at=request.time, now=now, window_s=window_s)
