"""Responses without a signature: HTTP errors, HTML pages, and bodies of unknown origin."""

from __future__ import annotations

import pytest
from google.rpc.error_details_pb2 import RetryInfo

from tests.e2e.caller import alarm
from tests.e2e.conftest import Rpc
from tests.e2e.upstream import Request, Response, responds
from tests.e2e.wallet import compact, result

HTML = Response(200, (("Content-Type", "text/html"),), b"<html><body>Something went wrong</body></html>")
CLAIMS_SUCCESS = Response(200, (("Content-Type", "application/json"),), compact(result()))


def claiming(rpc: Rpc, code: str, status: str = "F") -> Response:
    """Return an unsigned response with a result code, in the format of the RPC's protocol."""
    body: object = result(status, code)
    if rpc.api.name == "BindAccount":
        body = {"response": {"head": {}, "body": body}}
    return CLAIMS_SUCCESS.but(body=compact(body))


@pytest.mark.parametrize("http_status", [503, 408])
async def test_server_error_leaves_the_outcome_unknown(rpc: Rpc, http_status: int) -> None:
    script = responds(lambda _: HTML.but(status=http_status))
    reported = await rpc.refused(script, rpc.doubt("UPSTREAM_HTTP_ERROR"))
    assert reported.metadata["http_status"] == str(http_status)


async def test_redirect_is_not_followed(rpc: Rpc) -> None:
    elsewhere = HTML.but(status=307).setting("Location", f"{rpc.upstream.url}/elsewhere")
    await rpc.refused(responds(lambda _: elsewhere), alarm("UPSTREAM_HTTP_ERROR"))


@pytest.mark.parametrize("body", [HTML, CLAIMS_SUCCESS])
async def test_unsigned_200_is_not_a_success(rpc: Rpc, body: Response) -> None:
    await rpc.refused(responds(lambda _: body), rpc.doubt("RESPONSE_UNSIGNED"))


@pytest.mark.parametrize(("code", "status"), [("SUCCESS", "S"), ("USER_NOT_EXIST", "F")])
async def test_unsigned_code_is_reported_as_unverified_and_is_no_outcome(
    rpc: Rpc, code: str, status: str
) -> None:
    script = responds(lambda _: claiming(rpc, code, status))
    reported = await rpc.refused(script, rpc.doubt("RESPONSE_UNSIGNED"))
    assert reported.metadata["unverified_result_code"] == code
    assert "result_code" not in reported.metadata


async def test_unsigned_configuration_fault_needs_an_operator_and_is_logged(rpc: Rpc) -> None:
    code, http_status = "INVALID_SIGNATURE", 401
    traced = claiming(rpc, code).but(status=http_status).setting("Tracer-Id", "tracer-7")
    request = rpc.api.request()
    reported = await rpc.refused(responds(lambda _: traced), alarm("RESPONSE_UNSIGNED"), request)
    assert reported.metadata["unverified_result_code"] == code
    attempt = await rpc.gateway.attempt_logged(request.request_id)
    call = await rpc.gateway.call_logged(request.request_id)
    assert (attempt["level"], call["level"]) == ("warning", "error")
    for record in (attempt, call):
        facts = ("unverified_result_code", "http_status", "tracer_id")
        assert [record[name] for name in facts] == [code, http_status, "tracer-7"]
    assert (attempt["signing_key_version"], attempt["address"]) == ("1", rpc.upstream.url[7:])


@pytest.mark.parametrize(
    ("retry_after", "wait_ms"), [("7", 7_000), ("Wed, 21 Oct 2015 07:28:09 GMT", 9_000)]
)
async def test_wait_of_retry_after_is_reported(sync: Rpc, retry_after: str, wait_ms: int) -> None:
    page = HTML.but(status=503).setting("Retry-After", retry_after)
    page = page.setting("Date", "Wed, 21 Oct 2015 07:28:00 GMT")
    reported = await sync.refused(responds(lambda _: page), sync.doubt("UPSTREAM_HTTP_ERROR"))
    assert reported.metadata["attempts"] == "1"
    (wait,) = reported.details(RetryInfo)
    assert wait.retry_delay.ToMilliseconds() == wait_ms


async def test_cookie_of_a_response_is_not_sent_with_the_next_request(sync: Rpc) -> None:
    def respond(request: Request) -> Response:
        return sync.wallet.right(request).setting("Set-Cookie", "session=1; Path=/")

    sync.upstream.script = responds(respond)
    await sync.accepted()
    sync.upstream.requests.clear()
    await sync.accepted()
    assert not sync.upstream.requests[0].has("Cookie")
