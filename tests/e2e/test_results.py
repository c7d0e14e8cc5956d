"""Signed responses: the outcome depends on AlipayHK's result and not on the HTTP status."""

from __future__ import annotations

import gzip
import time

import pytest
from grpc import StatusCode

from tests.e2e.caller import Expected, rejected
from tests.e2e.conftest import Rpc
from tests.e2e.samples import SYNC
from tests.e2e.upstream import Request, Response, responds
from tests.e2e.wallet import compact, now, result

REJECTIONS = {
    "USER_NOT_EXIST": rejected(StatusCode.NOT_FOUND),
    "PROCESS_FAIL": rejected(StatusCode.FAILED_PRECONDITION, "never"),
    "代碼-1234": rejected(StatusCode.FAILED_PRECONDITION),
    "INVALID_SIGNATURE": Expected(StatusCode.INTERNAL, "GATEWAY_REFUSED", "rejected", "operator"),
}


async def test_signed_success_is_ok(rpc: Rpc) -> None:
    response = await rpc.accepted()
    assert response.result.code == rpc.api.success["result"]["resultCode"]  # type: ignore[index]
    assert response.result.message
    assert rpc.api is SYNC or response.account.name == "陳大文"


@pytest.mark.parametrize("code", REJECTIONS)
async def test_signed_failure_is_final_and_mapped_by_its_code(rpc: Rpc, code: str) -> None:
    reported = await rpc.refused(rpc.wallet.says(result("F", code, "the reason")), REJECTIONS[code])
    assert reported.metadata.get("result_code", "") == code
    assert reported.metadata["result_status"] == "F"
    assert reported.metadata["result_message"] == "the reason"
    assert reported.metadata["http_status"] == "200"


@pytest.mark.parametrize(("status", "code"), [("U", "UNKNOWN_EXCEPTION"), ("P", "SUCCESS")])
async def test_any_other_status_is_an_unknown_result(rpc: Rpc, status: str, code: str) -> None:
    reported = await rpc.refused(rpc.wallet.says(result(status, code)), rpc.doubt("WALLET_RESULT_UNKNOWN"))
    assert reported.metadata.get("result_status", "") == status
    assert reported.metadata["result_code"] == code


@pytest.mark.parametrize("status", ["U", "F"])
async def test_signed_traffic_limit_is_not_final(rpc: Rpc, status: str) -> None:
    script = rpc.wallet.says(result(status, "REQUEST_TRAFFIC_EXCEED_LIMIT"))
    expected = rpc.doubt("WALLET_RATE_LIMITED", code=StatusCode.RESOURCE_EXHAUSTED)
    reported = await rpc.refused(script, expected)
    assert reported.metadata["result_code"] == "REQUEST_TRAFFIC_EXCEED_LIMIT"


@pytest.mark.parametrize("http_status", [302, 500])
async def test_verified_success_is_accepted_with_any_http_status(rpc: Rpc, http_status: int) -> None:
    await rpc.accepted(rpc.wallet.says(status=http_status))


async def test_verified_failure_is_final_with_any_http_status(rpc: Rpc) -> None:
    script = rpc.wallet.says(result("F", "USER_NOT_EXIST"), status=429)
    reported = await rpc.refused(script, rejected(StatusCode.NOT_FOUND))
    assert reported.metadata["http_status"] == "429"


async def test_longest_details_fit_in_the_limit(rpc: Rpc) -> None:
    request = rpc.api.request(request_id="x" * (64 if rpc.api.name == "BindAccount" else 128))
    script = rpc.wallet.says(result("長" * 9_999, "碼" * 9_999, "𠮷" * 9_999))
    await rpc.refused(script, rpc.doubt("WALLET_RESULT_UNKNOWN"), request)


async def test_tracer_id_is_reported_with_an_error(rpc: Rpc) -> None:
    def respond(request: Request) -> Response:
        return rpc.wallet.right(request, result("F", "USER_NOT_EXIST")).setting("Tracer-Id", "tracer-0815")

    reported = await rpc.refused(responds(respond), rejected(StatusCode.NOT_FOUND))
    assert reported.metadata["tracer_id"] == "tracer-0815"


@pytest.mark.parametrize("odd", ["resultMessage", "resultCode"])
async def test_failure_with_a_lone_surrogate_is_reported(rpc: Rpc, odd: str) -> None:
    failure = {"resultStatus": "F", "resultCode": "X", "resultMessage": "y"} | {odd: "@"}
    body = compact({"result": failure}).replace(b"@", b"\\ud800")
    script = responds(lambda request: rpc.wallet.signed(request, body))
    await rpc.refused(script, rejected(StatusCode.FAILED_PRECONDITION))


async def test_response_time_is_returned(either: Rpc) -> None:
    sent_at = now()
    response = await either.accepted(responds(lambda request: either.wallet.signed(request, time=sent_at)))
    assert response.response_time.ToJsonString().replace("Z", "+00:00") == sent_at


async def test_harmless_variants_are_read(either: Rpc) -> None:
    sent_at = int(time.time()) * 1000

    def respond(request: Request) -> Response:
        body = compact(result(code="CODE")).replace(b'"CODE"', b"200")
        signed = either.wallet.signed(request, body, time=str(sent_at))
        return signed.but(body=gzip.compress(signed.body)).setting("Content-Encoding", "gzip")

    response = await either.accepted(responds(respond))
    assert response.result.code == "200"
    assert response.response_time.ToMilliseconds() == sent_at
