"""The bytes that AlipayHK receives: the target, the headers, the envelope and the business content."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.conftest import Rpc
from tests.e2e.samples import CLIENT_ID, FUNCTION, PATHS
from tests.e2e.upstream import Request, Upstream
from tests.e2e.wallet import head_of

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)"


def is_now(text: str) -> bool:
    """Return whether a time is the current one, written with seconds and an offset."""
    age = datetime.now(UTC) - datetime.fromisoformat(text)
    return bool(re.fullmatch(TIME, text)) and timedelta(seconds=-1) < age < timedelta(seconds=10)


async def sent(rpc: Rpc, request: Any) -> Request:
    """Call; return the request that AlipayHK received."""
    await rpc.accepted(request=request)
    return rpc.upstream.requests[0]


async def test_path_and_query_are_sent_unchanged(either: Rpc) -> None:
    await either.accepted()
    assert either.upstream.requests[0].line == f"POST {PATHS[either.api.name]} HTTP/1.1"


async def test_header_signed_request_has_each_header_once(sync: Rpc) -> None:
    await sync.accepted()
    (request,) = sync.upstream.requests
    names = [name for name, _ in request.headers]
    assert sorted(names) == sorted(set(names))
    assert {"Client-Id", "Request-Time", "Signature"} <= set(names)
    assert not request.has("Encrypt")
    assert request.header("Client-Id") == CLIENT_ID
    assert request.header("Content-Type") == "application/json; charset=UTF-8"
    assert is_now(request.header("Request-Time"))
    assert re.fullmatch(
        r"algorithm=RSA256,keyVersion=1,signature=([A-Za-z0-9]|%2B|%2F|%3D)+", request.header("Signature")
    )


async def test_request_accepts_no_content_coding(either: Rpc) -> None:
    await either.accepted()
    (request,) = either.upstream.requests
    assert request.header("Accept-Encoding") == "identity"
    assert request.header("Host") == f"127.0.0.1:{either.upstream.port}"
    assert not request.has("Transfer-Encoding")
    assert not request.has("Expect")


async def test_envelope_has_its_head_in_order(bind: Rpc) -> None:
    request = bind.api.request()
    head = head_of(await sent(bind, request))
    assert is_now(head.pop("reqTime"))
    assert head == {
        "clientId": CLIENT_ID,
        "function": FUNCTION,
        "reserve": "{}",
        "version": "1.0.0",
        "reqMsgId": request.request_id,
    }
    (received,) = bind.upstream.requests
    assert received.header("Content-Type") == "application/json; charset=UTF-8"
    assert not received.has("Signature")
    assert not received.has("Client-Id")


async def test_sample_with_every_field_arrives_unchanged(either: Rpc) -> None:
    request: Any = either.api.request()
    received = await sent(either, request)
    assert either.wallet.business(received) == either.api.body(request.request_id)


TEXTS = {
    "escapes": "\\u0041\\n",
    "astral": "𠮷𩸽😀",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_text_is_sent_as_raw_utf_8(either: Rpc, text: str) -> None:
    name = "external_identity_value" if either.api.name == "SyncLinkage" else "account_id"
    business = either.wallet.business(await sent(either, either.api.request(**{name: text})))
    wire_name = "externalIdentityValue" if name == "external_identity_value" else "accountId"
    assert json.loads(business)[wire_name] == text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    assert f'"{wire_name}":"{escaped}"'.encode() in business


async def test_connection_is_reused_only_for_idempotent_requests(rpc: Rpc, upstream: Upstream) -> None:
    for _ in range(3):
        upstream.requests.clear()
        await rpc.accepted()
        await asyncio.sleep(0.2)  # a connection is not reused for 100 ms after a response
    connections = upstream.connections
    assert connections <= 1 if rpc.idempotent else connections == 3
