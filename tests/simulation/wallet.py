"""A model of AlipayHK: it verifies requests, decides each once, keeps the order, and signs its responses.

Signatures are HMACs here, through the same calls as RSA keys: they are a hundred times faster, and nothing
that the simulation looks for depends on the algorithm.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast

from cryptography.exceptions import InvalidSignature

from clients.alipayhk.api import Api
from clients.alipayhk.wire.endpoint import Endpoint, WireProtocol
from clients.alipayhk.wire.keys import Keys
from clients.alipayhk.wire.messages import PlainResponse, RawRequest, VerifiedRequest
from clients.alipayhk.wire.protocols.envelope_signed import EnvelopeSigned
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned

CLIENT_ID: Final = "C"
PATHS: Final = {Api.SYNC_LINKAGE: "/sync", Api.BIND_ACCOUNT: "/bind"}
BASE_URL: Final = "http://127.0.0.1:9"
FRONT_END_CODES: Final = ("INVALID_SIGNATURE", "ACCESS_DENIED")
"""Codes with which AlipayHK rejects the gateway's configuration, before the wallet sees the request."""
LIMITED: Final = "REQUEST_TRAFFIC_EXCEED_LIMIT"
ODD_REPEAT: Final = "ALREADY_DONE_IN_OTHER_WORDS"
"""A code that no table knows, for a request that was applied before."""

Id = tuple[str, str]
"""API and request id."""


class HmacKey:
    """Stands for an RSA key pair."""

    key_size = 256

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, content: bytes, *_: object) -> bytes:
        """Return the signature."""
        return hmac.digest(self._secret, content, "sha256")

    def verify(self, signature: bytes, content: bytes, *_: object) -> None:
        """Raise InvalidSignature unless the signature is that of the content."""
        if not hmac.compare_digest(signature, self.sign(content)):
            raise InvalidSignature


_OURS, _THEIRS = HmacKey(b"merchant"), HmacKey(b"wallet")


def endpoints(*, gateway: bool) -> dict[str, Endpoint]:
    """Return the endpoint of each API, with the keys of the gateway's side or of AlipayHK's side."""
    signing, verifying = (_OURS, _THEIRS) if gateway else (_THEIRS, _OURS)
    keys = Keys(cast("Any", signing), "1", {"1": cast("Any", verifying)}, {})
    protocols: dict[Api, WireProtocol] = {
        Api.SYNC_LINKAGE: HeaderSigned(),
        Api.BIND_ACCOUNT: EnvelopeSigned("account.bind", "1.0.0"),
    }
    return {
        api: Endpoint(
            api, protocol, BASE_URL, PATHS[api], CLIENT_ID, keys, idempotent=api is Api.SYNC_LINKAGE
        )
        for api, protocol in protocols.items()
    }


@dataclass(frozen=True, slots=True)
class Received:
    """A request that AlipayHK received and could verify."""

    endpoint: Endpoint
    request: VerifiedRequest
    request_id: str
    content: str
    """What it asks for: two contents under one id differ in it."""
    linkage: str
    biz_time: int

    @property
    def id(self) -> Id:
        """The request's id."""
        return self.endpoint.api, self.request_id


@dataclass(slots=True)
class Decision:
    """AlipayHK's first result for a request id."""

    code: str
    """`S`, or the code of a rejection."""
    content: str
    effects: int = 0
    applied: set[str] = field(default_factory=set)
    """The contents that took effect."""


@dataclass
class Wallet:
    """AlipayHK's data."""

    verdicts: dict[Id, str] = field(default_factory=dict)
    """The code with which a request will be rejected, by its id; all others succeed."""
    decided: dict[Id, Decision] = field(default_factory=dict)
    linkages: dict[str, tuple[int, str]] = field(default_factory=dict)
    """The newest update of each linkage: biz_time and request id."""
    arrived: dict[str, tuple[int, str]] = field(default_factory=dict)
    """The last update of each linkage that came: what a wallet without an order of its own would have."""
    changed: list[Id] = field(default_factory=list)
    """Requests that came with a content other than the first one."""
    answers: int = 0

    def __post_init__(self) -> None:
        """Prepare AlipayHK's side of each API."""
        self._endpoints = endpoints(gateway=False)

    def read(self, raw: RawRequest) -> Received:
        """Verify a request."""
        endpoint = next(one for one in self._endpoints.values() if one.path == raw.path)
        request = endpoint.protocol.unseal_request(endpoint, raw)
        request_id = str(request.body.get("requestId") or request.head.get("reqMsgId"))
        body = request.body
        linkage, biz_time = str(body.get("user", "")), body.get("bizTime", 0)
        content = str(body.get("operate") or body.get("account"))
        assert isinstance(biz_time, int)
        return Received(endpoint, request, request_id, content, linkage, biz_time)

    def decide(self, received: Received) -> str:
        """Apply a request, and return its code: SyncLinkage once per id, BindAccount each time."""
        known = self.decided.get(received.id)
        if known is not None and known.content != received.content:
            self.changed.append(received.id)
        if known is not None and received.endpoint.idempotent:
            return known.code
        if known is None:
            code = self.verdicts.get(received.id, "S")
            known = self.decided[received.id] = Decision(code, received.content)
        if known.code == "S":
            known.effects += 1
            known.applied.add(received.content)
            newest, update = self.linkages.get(received.linkage), (received.biz_time, received.request_id)
            if received.linkage:
                self.arrived[received.linkage] = update
            if received.linkage and (newest is None or newest[0] <= received.biz_time):
                self.linkages[received.linkage] = update
        return known.code

    def effects(self, request: Id) -> int:
        """Return how often a request took effect."""
        decision = self.decided.get(request)
        return 0 if decision is None else decision.effects

    def applied(self, request: Id, content: str) -> bool:
        """Return whether a request took effect with this content."""
        decision = self.decided.get(request)
        return decision is not None and content in decision.applied

    def answer(self, received: Received, code: str, now_s: float, *, status: str = "") -> tuple[str, bytes]:
        """Return a response's number and its bytes; every response has another Tracer-Id."""
        self.answers += 1
        number = f"t{self.answers}"
        status = status or ("S" if code == "S" else "F")
        body: dict[str, object] = {
            "result": {"resultStatus": status, "resultCode": "SUCCESS" if code == "S" else code}
        }
        if received.endpoint.api == Api.BIND_ACCOUNT:
            body["accountInfo"] = {"accountId": received.request_id}
        response = PlainResponse(body, datetime.fromtimestamp(now_s, UTC), tracer_id=number)
        sealed = received.endpoint.protocol.seal_response(received.endpoint, received.request, response)
        return number, http_response(200, sealed.headers, sealed.body)


def http_response(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> bytes:
    """Return the bytes of a response."""
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
