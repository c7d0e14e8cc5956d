"""Tamper with requests, and check the unsigned rejection of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clients.alipayhk.wire import crypto
from clients.alipayhk.wire.messages import Headers, SealedRequest, header_values
from clients.alipayhk.wire.protocols import envelope_signed, header_signed, header_text
from tests.sandbox.callers import CLIENT_ID, KeyRing, Merchant, Reply, sync_body

SYNC = "SyncLinkage"
BIND = "BindAccount"


def with_header(sealed: SealedRequest, name: str, *values: str) -> SealedRequest:
    """Return a request with exactly these values of one header."""
    others: Headers = tuple(line for line in sealed.headers if line[0] != name)
    return replace(sealed, headers=(*others, *((name, value) for value in values)))


def signature_line(sealed: SealedRequest) -> str:
    """Return the header Signature."""
    return header_values(sealed.headers, "Signature")[0]


def result_of(api: str, reply: Reply) -> Any:
    """Return the result in a response."""
    return reply.json()["result"] if api == SYNC else reply.json()["response"]["body"]["result"]


async def refused(merchant: Merchant, api: str, sealed: SealedRequest, code: str) -> str:
    """Send a request that must get an unsigned rejection with this code; return its resultMessage."""
    reply = await merchant.send(sealed)
    result, entry = result_of(api, reply), await merchant.latest()
    assert (reply.status, result["resultStatus"], result["resultCode"]) == (200, "F", code)
    assert reply.header("Signature") is None
    assert api == SYNC or set(reply.json()) == {"response"}
    assert entry["verdict"] == f"{code}: {result['resultMessage']}"
    assert entry["verified"] is False
    assert (await merchant.console("wallet"))["requests"] == {}
    return str(result["resultMessage"])


def sealed_content(ring: KeyRing, content: bytes) -> bytes:
    """Return an envelope with any content and its valid signature."""
    return envelope_signed.sealed_envelope("request", content, crypto.sign(ring.merchant, content))


def signed(merchant: Merchant, ring: KeyRing, body: bytes, *more: tuple[str, str]) -> SealedRequest:
    """Return a header-signed request with any body and a valid signature."""
    sealed = merchant.seal(SYNC, sync_body())
    time = header_values(sealed.headers, "Request-Time")[0]
    content = header_signed.content_to_sign(sealed.path, CLIENT_ID, time, body)
    line = header_text.signature_header("1", crypto.sign(ring.merchant, content))
    sealed = with_header(sealed, "Signature", line)
    return replace(sealed, headers=(*sealed.headers, *more), body=body)
