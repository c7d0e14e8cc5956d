"""Both sides of both protocols: our endpoint, AlipayHK's endpoint ("the wallet"), and its responses."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from hypothesis import HealthCheck, settings

from clients.alipayhk.wire import crypto
from clients.alipayhk.wire.crypto import EncryptionProfile
from clients.alipayhk.wire.endpoint import Encryption, Endpoint, WireProtocol
from clients.alipayhk.wire.keys import Keys
from clients.alipayhk.wire.messages import (
    Headers,
    PlainRequest,
    PlainResponse,
    RawRequest,
    RawResponse,
    SealedRequest,
    VerifiedRequest,
    VerifiedResponse,
    header_values,
)
from clients.alipayhk.wire.protocols import envelope_signed, header_signed, header_text
from clients.alipayhk.wire.protocols.envelope_signed import EnvelopeSigned
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned
from clients.alipayhk.wire.strict_json import write_json

CLIENT_ID: Final = "4Q5Y8W0WSG45P907917"
PATH: Final = "/api/open/v1/example/path"
FUNCTION: Final = "alipay.intl.merchant.account.bind"
REQUEST_ID: Final = "req-0001"

SENT_AT: Final = datetime(2024, 5, 22, 1, 12, 21, 600_000, UTC)
NOW: Final = SENT_AT + timedelta(seconds=0.8)
ANSWERED_AT: Final = "2024-05-22T06:42:22+05:30"
OK_BODY: Final = b'{"result":{"resultCode":"SUCCESS","resultStatus":"S","resultMessage":"success"}}'

_FULL: Final = os.environ.get("HYPOTHESIS_PROFILE") == "full"


def modest(examples: int) -> settings:
    """Return hypothesis settings; with HYPOTHESIS_PROFILE=full there are 20 times as many examples."""
    return settings(
        max_examples=examples * (20 if _FULL else 1),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@dataclass(frozen=True)
class Sides:
    """One API as both sides have configured it."""

    us: Endpoint
    wallet: Endpoint

    def but(self, **changes: Any) -> Sides:
        """Return both sides with the same changes."""
        return Sides(replace(self.us, **changes), replace(self.wallet, **changes))

    def with_profile(self, profile: EncryptionProfile) -> Sides:
        """Return both sides with encrypted requests and this profile."""
        return self.speaking(encryption=Encryption(profile), encrypt_requests=True)

    def speaking(self, **changes: Any) -> Sides:
        """Return both sides with the same changes to their header-signed protocol."""
        return Sides(speaking(self.us, **changes), speaking(self.wallet, **changes))

    @property
    def encrypts(self) -> bool:
        """Whether our requests are encrypted."""
        return isinstance(self.us.protocol, HeaderSigned) and self.us.protocol.encrypt_requests

    @property
    def encryption(self) -> Encryption:
        """How both sides encrypt."""
        assert self.us.protocol.encryption is not None
        return self.us.protocol.encryption

    def seal(self, body: bytes, *, request_id: str = REQUEST_ID, time: datetime = NOW) -> SealedRequest:
        """Seal a request as the client does."""
        return self.us.protocol.seal_request(self.us, PlainRequest(request_id, body, time))

    def receive(self, path: str, headers: Headers, body: bytes) -> VerifiedRequest:
        """Unseal a request as the wallet does."""
        return self.wallet.protocol.unseal_request(self.wallet, RawRequest(path, headers, body))

    def reply(
        self, request: VerifiedRequest, body: Mapping[str, object], time: datetime = NOW
    ) -> RawResponse:
        """Seal a response as the wallet does."""
        sealed = self.wallet.protocol.seal_response(self.wallet, request, PlainResponse(body, time))
        return RawResponse(200, sealed.headers, sealed.body)

    def open(
        self,
        raw: RawResponse,
        *,
        request_id: str = REQUEST_ID,
        sent_at: datetime = SENT_AT,
        now: datetime = NOW,
    ) -> VerifiedResponse:
        """Unseal a response as the client does."""
        request = PlainRequest(request_id, b"", sent_at)
        return self.us.protocol.unseal_response(self.us, request, raw, now=now)


def speaking(endpoint: Endpoint, **changes: Any) -> Endpoint:
    """Return `endpoint` with changes to its header-signed protocol."""
    assert isinstance(endpoint.protocol, HeaderSigned)
    return replace(endpoint, protocol=replace(endpoint.protocol, **changes))


HEADER_SIGNED: Final = HeaderSigned()
ENVELOPE_SIGNED: Final = EnvelopeSigned(FUNCTION, "1.0.0")


def both_sides(protocol: WireProtocol, ours: RSAPrivateKey, theirs: RSAPrivateKey) -> Sides:
    """Return an API over one protocol, with a key pair for each side."""
    enveloped = protocol == ENVELOPE_SIGNED
    us = Endpoint(
        api="BindAccount" if enveloped else "SyncLinkage",
        protocol=protocol,
        base_url="http://127.0.0.1:9",
        path=PATH,
        client_id=CLIENT_ID,
        keys=Keys(ours, "1", {"1": theirs.public_key()}, {"1": ours}),
        idempotent=not enveloped,
    )
    return Sides(us, replace(us, keys=Keys(theirs, "1", {"1": ours.public_key()}, {"1": theirs})))


def header_answer(
    sides: Sides,
    body: bytes = OK_BODY,
    *,
    time: str = ANSWERED_AT,
    client_id: str = CLIENT_ID,
    http_status: int = 200,
    extra: Headers = (),
) -> RawResponse:
    """Return a header-signed response with exactly this body."""
    content = header_signed.content_to_sign(sides.wallet.path, client_id, time, body)
    signature = crypto.sign(sides.wallet.keys.signing, content)
    line = header_text.signature_header("1", signature)
    headers = (("Client-Id", client_id), ("Response-Time", time), ("Signature", line), *extra)
    return RawResponse(http_status, headers, body)


def encrypted_answer(sides: Sides, body: bytes = OK_BODY) -> RawResponse:
    """Return an encrypted header-signed response."""
    value, text = header_signed.encrypt_body(sides.encryption, sides.wallet.keys, body)
    return header_answer(sides, text, extra=(("Encrypt", value),))


def head(**changes: object) -> dict[str, object]:
    """Return the head of a response to `REQUEST_ID`, with changes; None removes a member."""
    members: dict[str, object] = {
        "clientId": CLIENT_ID,
        "function": FUNCTION,
        "reqMsgId": REQUEST_ID,
        "respTime": ANSWERED_AT,
    }
    return {name: value for name, value in (members | changes).items() if value is not None}


def envelope_content(body: bytes = OK_BODY, /, **changes: object) -> bytes:
    """Return the value of the member `response`: the head with changes, and exactly `body`."""
    return b'{"head":' + write_json(head(**changes)) + b',"body":' + body + b"}"


def envelope_answer(
    sides: Sides, content: bytes | None = None, *, http_status: int = 200, end_announced: bool = True
) -> RawResponse:
    """Return an envelope-signed response with exactly this signed content."""
    content = envelope_content() if content is None else content
    body = envelope_signed.sealed_envelope(
        "response", content, crypto.sign(sides.wallet.keys.signing, content)
    )
    return RawResponse(http_status, (), body, end_announced)


def answer(sides: Sides, body: bytes = OK_BODY, *, http_status: int = 200) -> RawResponse:
    """Return a response in the protocol of these sides."""
    if isinstance(sides.us.protocol, HeaderSigned):
        return header_answer(sides, body, http_status=http_status)
    return envelope_answer(sides, envelope_content(body), http_status=http_status)


def with_header(raw: RawResponse, name: str, *values: str) -> RawResponse:
    """Return `raw` with exactly these values of one header; without a value, the header is removed."""
    others = tuple(line for line in raw.headers if line[0] != name)
    return replace(raw, headers=(*others, *((name, value) for value in values)))


def header(raw: RawResponse, name: str) -> str:
    """Return the only value of a header."""
    (value,) = header_values(raw.headers, name)
    return value


def signature_text(raw: RawResponse) -> str:
    """Return the signature of a header-signed response as base64 without percent-encoding."""
    pairs = header_text.header_pairs(header(raw, "Signature"))
    return crypto.base64_text(crypto.url_base64_bytes(pairs["signature"]))


def with_signature(raw: RawResponse, text: str) -> RawResponse:
    """Return `raw` with this text instead of the signature."""
    return with_header(raw, "Signature", f"algorithm=RSA256,keyVersion=1,signature={text}")


def quoted(text: str) -> str:
    """Percent-encode a text, as signatures are on the wire."""
    return quote(text, safe="")
