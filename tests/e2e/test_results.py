"""Signed responses: the outcome depends on AlipayHK's result and not on the HTTP status."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from tests.e2e.caller import Expected, rejected
from tests.e2e.conftest import Rpc
from tests.e2e.upstream import Request, Response, responds
from tests.e2e.wallet import result

SET_UP_CODES = (
    "INVALID_SIGNATURE",
    "INVALID_CLIENT",
    "KEY_NOT_FOUND",
    "ACCESS_DENIED",
    "INVALID_API",
    "METHOD_NOT_SUPPORTED",
    "MEDIA_TYPE_NOT_ACCEPTABLE",
)
REJECTIONS = {
    "PARAM_ILLEGAL": rejected(StatusCode.INVALID_ARGUMENT),
    "USER_NOT_EXIST": rejected(StatusCode.NOT_FOUND),
    "PROCESS_FAIL": rejected(StatusCode.FAILED_PRECONDITION, "never"),
    **dict.fromkeys(
        (
            "NEVER_HEARD_OF",
            "代碼-1234",
        ),
        rejected(StatusCode.FAILED_PRECONDITION),
    ),
    **dict.fromkeys(SET_UP_CODES, Expected(StatusCode.INTERNAL, "GATEWAY_REFUSED", "rejected", "operator")),
}


async def test_signed_success_is_ok(rpc: Rpc) -> None:
    response = await rpc.accepted()
    assert response.result.code == rpc.api.success["result"]["resultCode"]  # type: ignore[index]
    assert response.result.message


@pytest.mark.parametrize("code", REJECTIONS)
async def test_signed_failure_is_final_and_mapped_by_its_code(rpc: Rpc, code: str) -> None:
    reported = await rpc.refused(rpc.wallet.says(result("F", code, "the reason")), REJECTIONS[code])
    assert reported.metadata.get("result_code", "") == code
    assert reported.metadata["result_status"] == "F"
    assert reported.metadata["result_message"] == "the reason"
    assert reported.metadata["http_status"] == "200"


async def test_failure_with_an_empty_code_is_malformed(rpc: Rpc) -> None:
    script = rpc.wallet.says({"result": {"resultStatus": "F", "resultCode": ""}})
    await rpc.refused(script, Expected(StatusCode.INTERNAL, "RESPONSE_MALFORMED", "unknown", "operator"))


@pytest.mark.parametrize(
    ("status", "code"),
    [("U", "UNKNOWN_EXCEPTION"), ("U", "SYSTEM_ERROR"), ("P", "SUCCESS"), ("s", "SUCCESS"), ("", "X")],
)
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


async def test_long_result_message_is_truncated_to_256_characters(rpc: Rpc) -> None:
    script = rpc.wallet.says(result("F", "PROCESS_FAIL", "長" * 300))
    reported = await rpc.refused(script, rejected(StatusCode.FAILED_PRECONDITION, "never"))
    assert reported.metadata["result_message"] == "長" * 256


async def test_longest_details_fit_in_the_limit(rpc: Rpc) -> None:
    request = rpc.api.request(request_id="x" * (64 if rpc.api.name == "BindAccount" else 128))
    script = rpc.wallet.says(result("長" * 9_999, "碼" * 9_999, "𠮷" * 9_999))
    await rpc.refused(script, rpc.doubt("WALLET_RESULT_UNKNOWN"), request)


async def test_tracer_id_is_reported_with_an_error(rpc: Rpc) -> None:
    def respond(request: Request) -> Response:
        return rpc.wallet.right(request, result("F", "USER_NOT_EXIST")).setting("Tracer-Id", "tracer-0815")

    reported = await rpc.refused(responds(respond), rejected(StatusCode.NOT_FOUND))
    assert reported.metadata["tracer_id"] == "tracer-0815"
