"""Answers that carry no signature: HTTP errors, pages, and bodies that anybody may have written."""

from __future__ import annotations

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc import StatusCode

from tests.e2e.caller import Expected, alarm
from tests.e2e.conftest import Way
from tests.e2e.upstream import Answer, Request, answers
from tests.e2e.wallet import compact, result

HTML = Answer(200, (("Content-Type", "text/html"),), b"<html><body>Something went wrong</body></html>")
CLAIMS_SUCCESS = Answer(200, (("Content-Type", "application/json"),), compact(result()))


def claiming(way: Way, code: str, status: str = "F") -> Answer:
    """Return an unsigned body that claims a code, in the form of the RPC's protocol."""
    body: object = result(status, code)
    if way.api.name == "BindAccount":
        body = {"response": {"head": {}, "body": body}}
    return CLAIMS_SUCCESS.but(body=compact(body))


@pytest.mark.parametrize("http_status", [503, 408])
async def test_server_error_leaves_the_outcome_unknown(way: Way, http_status: int) -> None:
    script = answers(lambda _: HTML.but(status=http_status))
    reported = await way.refused(script, way.doubt("UPSTREAM_HTTP_ERROR"))
    assert reported.metadata["http_status"] == str(http_status)


@pytest.mark.parametrize("http_status", [307])
async def test_redirect_is_not_followed(way: Way, http_status: int) -> None:
    elsewhere = HTML.but(status=http_status).setting("Location", f"{way.upstream.url}/elsewhere")
    await way.refused(answers(lambda _: elsewhere), alarm("UPSTREAM_HTTP_ERROR"))


@pytest.mark.parametrize("http_status", [304, 403])
async def test_other_client_error_is_for_an_operator_and_no_rejection(way: Way, http_status: int) -> None:
    page = HTML.but(status=http_status, body=b"" if http_status == 304 else None)
    reported = await way.refused(answers(lambda _: page), alarm("UPSTREAM_HTTP_ERROR"))
    assert reported.metadata["http_status"] == str(http_status)


@pytest.mark.parametrize("body", [HTML, CLAIMS_SUCCESS])
async def test_unsigned_200_is_no_success(way: Way, body: Answer) -> None:
    await way.refused(answers(lambda _: body), way.doubt("RESPONSE_UNSIGNED"))


async def test_unsigned_success_code_is_told_as_a_claim(way: Way) -> None:
    script = answers(lambda _: claiming(way, "SUCCESS", "S"))
    reported = await way.refused(script, way.doubt("RESPONSE_UNSIGNED"))
    assert reported.metadata["unverified_result_code"] == "SUCCESS"
    assert "result_code" not in reported.metadata


@pytest.mark.parametrize("code", ["USER_NOT_EXIST"])
async def test_unsigned_failure_is_no_rejection(way: Way, code: str) -> None:
    reported = await way.refused(answers(lambda _: claiming(way, code)), way.doubt("RESPONSE_UNSIGNED"))
    assert reported.metadata["unverified_result_code"] == code


@pytest.mark.parametrize(
    ("code", "http_status"),
    [
        ("INVALID_SIGNATURE", 200),
        ("INVALID_SIGNATURE", 401),
    ],
)
async def test_unsigned_claim_of_a_set_up_fault_is_for_an_operator_whatever_the_http_status(
    way: Way, code: str, http_status: int
) -> None:
    script = answers(lambda _: claiming(way, code).but(status=http_status))
    reported = await way.refused(script, alarm("RESPONSE_UNSIGNED"))
    assert reported.metadata["unverified_result_code"] == code


@pytest.mark.parametrize("code", ["代碼"])
async def test_unsigned_claim_that_is_no_code_is_not_told(way: Way, code: str) -> None:
    reported = await way.refused(answers(lambda _: claiming(way, code)), way.doubt("RESPONSE_UNSIGNED"))
    assert "unverified_result_code" not in reported.metadata


@pytest.mark.parametrize(
    ("retry_after", "wait_ms"),
    [("7", 7_000), ("Wed, 21 Oct 2015 07:28:09 GMT", 9_000), ("soon", None)],
)
@pytest.mark.parametrize("http_status", [429, 503])
async def test_retry_after_is_honoured(
    way: Way, http_status: int, retry_after: str | None, wait_ms: int | None
) -> None:
    limited = doubt_of(way, http_status)
    page = HTML.but(status=http_status).setting("Retry-After", *([retry_after] if retry_after else []))
    page = page.setting("Date", "Wed, 21 Oct 2015 07:28:00 GMT")
    reported = await way.refused(answers(lambda _: page), limited)
    if wait_ms:
        assert reported.metadata["attempts"] == "1"
    if wait_ms and limited.retry == "same_request_id":
        (wait,) = reported.details(RetryInfo)
        assert wait.retry_delay.ToMilliseconds() == wait_ms


def doubt_of(way: Way, http_status: int) -> Expected:
    """Expect what such an HTTP status means."""
    if http_status == 429:
        return way.doubt("WALLET_RATE_LIMITED", code=StatusCode.RESOURCE_EXHAUSTED)
    return way.doubt("UPSTREAM_HTTP_ERROR")


async def test_cookie_of_one_answer_is_not_sent_with_the_next_request(sync: Way) -> None:
    def answer(request: Request) -> Answer:
        return sync.wallet.right(request).setting("Set-Cookie", "session=1; Path=/")

    sync.upstream.script = answers(answer)
    await sync.accepted()
    sync.upstream.requests.clear()
    await sync.accepted()
    assert not sync.upstream.requests[0].has("Cookie")
