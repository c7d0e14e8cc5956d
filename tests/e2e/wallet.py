"""AlipayHK's side of both protocols: it verifies requests with plain cryptography and signs any content.

Correct responses come from the project's own code (`unseal_request`, `seal_response`). This module builds
the responses that are signed but wrong.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, unquote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.keys import Keys
from clients.alipayhk.wire.messages import PlainResponse, RawRequest
from clients.alipayhk.wire.protocols.envelope_signed import EnvelopeSigned
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned
from tests.e2e.samples import BIND, CLIENT_ID, FUNCTION, PATHS, SYNC, Api
from tests.e2e.upstream import Request, Response, Script, responds

JSON: Final = ("Content-Type", "application/json; charset=UTF-8")


def now() -> str:
    """Return the current time in AlipayHK's format."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def tracer_line() -> tuple[str, str]:
    """Return a Tracer-Id header that no other response has."""
    return "Tracer-Id", os.urandom(16).hex()


def sign(key: RSAPrivateKey, content: bytes) -> str:
    """Return the signature of the content in base64."""
    return base64.b64encode(key.sign(content, padding.PKCS1v15(), hashes.SHA256())).decode()


def verify(key: RSAPublicKey, signature: str, content: bytes) -> None:
    """Raise InvalidSignature unless the base64 text, percent-encoded, is the signature."""
    data = base64.b64decode(unquote(signature), validate=True)
    assert quote(base64.b64encode(data).decode(), safe="") == signature
    key.verify(data, content, padding.PKCS1v15(), hashes.SHA256())


def result(status: str = "S", code: str = "SUCCESS", message: str = "success") -> dict[str, object]:
    """Return a body that contains only a result."""
    return {"result": {"resultCode": code, "resultStatus": status, "resultMessage": message}}


def compact(value: object) -> bytes:
    """Return JSON in AlipayHK's format: compact, not ASCII only."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def api_of(request: Request) -> Api:
    """Return the API of a request."""
    return BIND if request.target == PATHS[BIND.name] else SYNC


@dataclass(frozen=True)
class Wallet:
    """AlipayHK with its own keys and the gateway's public key."""

    key: RSAPrivateKey
    merchant: RSAPublicKey
    client_id: str = CLIENT_ID
    key_version: str = "1"

    # -- received requests

    def business(self, request: Request) -> bytes:
        """Verify the signature over a request's exact bytes; return the bytes of its business content."""
        return self._bind_business(request) if api_of(request) is BIND else self._sync_business(request)

    def _sync_business(self, request: Request) -> bytes:
        client_id, time = request.header("Client-Id"), request.header("Request-Time")
        assert client_id == self.client_id
        algorithm, version, signature = request.header("Signature").split(",")
        assert (algorithm, version) == ("algorithm=RSA256", "keyVersion=1")
        content = f"POST {request.target}\n{client_id}.{time}.".encode() + request.body
        verify(self.merchant, signature.removeprefix("signature="), content)
        return request.body

    def _bind_business(self, request: Request) -> bytes:
        assert request.body.startswith(b'{"request":{"head":')
        content, mark, rest = request.body.removeprefix(b'{"request":').rpartition(b',"signature":"')
        assert mark
        verify(self.merchant, rest.removesuffix(b'"}').decode(), content)
        head = head_of(request)
        assert list(head) == ["clientId", "function", "reserve", "reqTime", "version", "reqMsgId"]
        assert head["clientId"] == self.client_id
        start = b'{"head":' + compact(head) + b',"body":'
        assert content.startswith(start)
        return content.removeprefix(start).removesuffix(b"}")

    # -- correct responses, from the project's own code

    def right(self, request: Request, body: Mapping[str, object] | None = None) -> Response:
        """Return AlipayHK's correct response; without a body, a success."""
        api = api_of(request)
        endpoint = self.endpoint(api, request.target)
        raw = RawRequest(request.target, request.headers, request.body)
        asked = endpoint.protocol.unseal_request(endpoint, raw)
        response = PlainResponse(body or api.success, datetime.now(UTC))
        sealed = endpoint.protocol.seal_response(endpoint, asked, response)
        return Response(200, (*sealed.headers, tracer_line()), sealed.body)

    def endpoint(self, api: Api, path: str = "") -> Endpoint:
        """Return an API's endpoint from AlipayHK's side, with AlipayHK's keys."""
        return Endpoint(
            api=api.name,
            protocol=EnvelopeSigned(FUNCTION, "1.0.0") if api is BIND else HeaderSigned(),
            base_url="",
            path=path,
            client_id=self.client_id,
            keys=Keys(self.key, self.key_version, {"1": self.merchant}, {"1": self.key}),
            idempotent=False,
        )

    def says(self, body: Mapping[str, object] | None = None, *, status: int = 200) -> Script:
        """Return a script that sends this body with a correct signature."""
        return responds(lambda request: self.right(request, body).but(status=status))

    # -- signed responses that may be wrong

    def signed(
        self,
        request: Request,
        body: bytes | None = None,
        *,
        time: str | None = None,
        client_id: str | None = None,
        **head: Any,
    ) -> Response:
        """Sign exactly this body; `head` changes members of an envelope's head, and None removes one."""
        api = api_of(request)
        body = compact(api.success) if body is None else body
        client_id = self.client_id if client_id is None else client_id
        if api is SYNC:
            return self.header_signed(request, body, time=time or now(), client_id=client_id)
        members = head_of(request) | {"respTime": time or now(), "clientId": client_id} | head
        present = {name: value for name, value in members.items() if value is not None}
        return self.enveloped(b'{"head":' + compact(present) + b',"body":' + body + b"}")

    def header_signed(
        self,
        request: Request,
        body: bytes,
        *,
        time: str,
        client_id: str,
        extra: tuple[tuple[str, str], ...] = (),
    ) -> Response:
        """Return a response with the signature of the body in its headers."""
        content = f"POST {request.target}\n{client_id}.{time}.".encode() + body
        line = signature_line(sign(self.key, content), version=self.key_version)
        signed = (("Client-Id", client_id), JSON, ("Response-Time", time), ("Signature", line))
        headers = (*signed, tracer_line(), *extra)
        return Response(200, headers, body)

    def enveloped(self, content: bytes) -> Response:
        """Return an envelope with this content as `response`, and its signature."""
        signature = quote(sign(self.key, content), safe="")
        return Response(
            200,
            (JSON, tracer_line()),
            b'{"response":' + content + b',"signature":"' + signature.encode() + b'"}',
        )

    def but(self, **changes: Any) -> Wallet:
        """Return this wallet with changes."""
        return replace(self, **changes)


def head_of(request: Request) -> dict[str, Any]:
    """Return the head of a request's envelope."""
    head: dict[str, Any] = json.loads(request.body)["request"]["head"]
    return head


def id_of(request: Request) -> str:
    """Return the id of a request that is not encrypted."""
    if api_of(request) is BIND:
        return str(head_of(request)["reqMsgId"])
    return str(json.loads(request.body)["requestId"])


def signature_line(signature: str, *, version: str = "1", algorithm: str = "RSA256") -> str:
    """Return the value of the header Signature."""
    return f"algorithm={algorithm},keyVersion={version},signature={quote(signature, safe='')}"
