"""Reading of signed responses: a success is read leniently, but invalid JSON is always refused."""

from __future__ import annotations

import gzip
import time
from typing import Any

import pytest
from grpc import StatusCode

from tests.e2e.caller import alarm, rejected
from tests.e2e.conftest import Rpc
from tests.e2e.samples import BIND
from tests.e2e.upstream import Request, Response, responds
from tests.e2e.wallet import compact, now, result

MALFORMED = alarm("RESPONSE_MALFORMED")
SUCCESS = {"resultStatus": "S", "resultCode": "SUCCESS", "resultMessage": "success"}


async def ok(rpc: Rpc, body: bytes | dict[str, Any]) -> Any:
    """Sign exactly this body and call; check that the status is OK, and return the response."""
    data = body if isinstance(body, bytes) else compact(body)
    return await rpc.accepted(responds(lambda request: rpc.wallet.signed(request, data)))


async def test_every_member_of_an_account_is_read(bind: Rpc) -> None:
    response = await bind.accepted()
    assert (response.result.status, response.result.code) == ("S", "0000")
    assert (response.result.code_id, response.result.message) == ("00000000", "SUCCESS")
    assert response.need_bind is True
    account: dict[str, Any] = dict(BIND.success["accountInfo"])  # type: ignore[call-overload]
    merchant = account.pop("merchant")
    assert [value for _, value in response.account.ListFields() if isinstance(value, str)] == list(
        account.values()
    )
    assert [value for _, value in response.account.merchant.ListFields()] == list(merchant.values())


@pytest.mark.parametrize("odd", ["resultMessage", "resultCode"])
async def test_failure_with_a_lone_surrogate_is_reported(rpc: Rpc, odd: str) -> None:
    failure = {"resultStatus": "F", "resultCode": "X", "resultMessage": "y"} | {odd: "@"}
    body = compact({"result": failure}).replace(b"@", b"\\ud800")
    script = responds(lambda request: rpc.wallet.signed(request, body))
    await rpc.refused(script, rejected(StatusCode.FAILED_PRECONDITION))


async def test_tracer_id_is_returned_as_printable_ascii(sync: Rpc) -> None:
    def respond(request: Request) -> Response:
        return sync.wallet.right(request).setting("Tracer-Id", "a\x80\xffb\tc")

    assert (await sync.accepted(responds(respond))).tracer_id == "abc"


async def test_response_time_is_returned(either: Rpc) -> None:
    sent_at = now()
    response = await either.accepted(responds(lambda request: either.wallet.signed(request, time=sent_at)))
    assert response.response_time.ToJsonString().replace("Z", "+00:00") == sent_at


async def test_response_time_missing_in_an_envelope_is_unset(bind: Rpc) -> None:
    response = await bind.accepted(responds(lambda request: bind.wallet.signed(request, respTime=None)))
    assert not response.HasField("response_time")


async def test_harmless_variants_are_read(either: Rpc) -> None:
    sent_at = int(time.time()) * 1000

    def respond(request: Request) -> Response:
        body = compact(result(code="CODE")).replace(b'"CODE"', b"200")
        signed = either.wallet.signed(request, body, time=str(sent_at))
        return signed.but(body=gzip.compress(signed.body)).setting("Content-Encoding", "gzip")

    response = await either.accepted(responds(respond))
    assert response.result.code == "200"
    assert response.response_time.ToMilliseconds() == sent_at


MALFORMED_BODIES = {
    "two results": b'{"result":' + compact(SUCCESS) + b',"result":' + compact(SUCCESS) + b"}",
    "no result": b"{}",
}


@pytest.mark.parametrize("name", MALFORMED_BODIES)
async def test_ambiguous_or_empty_signed_response_is_malformed(rpc: Rpc, name: str) -> None:
    script = responds(lambda request: rpc.wallet.signed(request, MALFORMED_BODIES[name]))
    await rpc.refused(script, MALFORMED)


async def test_message_of_a_success_is_returned_verbatim(either: Rpc) -> None:
    text = '成功 "quoted" \u2028 😀 ' + "長" * 2000
    response = await ok(either, result(message=text))
    assert response.result.message == text
