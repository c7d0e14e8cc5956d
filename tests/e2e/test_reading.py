"""Signed answers are read leniently after an S, and strictly as JSON."""

from __future__ import annotations

import gzip
import time
from typing import Any

import pytest
from grpc import StatusCode

from tests.e2e.caller import alarm, rejected
from tests.e2e.conftest import Way
from tests.e2e.samples import BIND
from tests.e2e.upstream import Answer, Request, answers
from tests.e2e.wallet import compact, now, result

MALFORMED = alarm("RESPONSE_MALFORMED")
SUCCESS = {"resultStatus": "S", "resultCode": "SUCCESS", "resultMessage": "success"}


async def ok(way: Way, body: bytes | dict[str, Any]) -> Any:
    """Have exactly this body signed; return the response, which must be OK."""
    data = body if isinstance(body, bytes) else compact(body)
    return await way.accepted(answers(lambda request: way.wallet.signed(request, data)))


async def test_every_member_of_an_account_is_read(bind: Way) -> None:
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
async def test_lone_surrogate_in_a_failure_is_told(way: Way, odd: str) -> None:
    failure = {"resultStatus": "F", "resultCode": "X", "resultMessage": "y"} | {odd: "@"}
    body = compact({"result": failure}).replace(b"@", b"\\ud800")
    script = answers(lambda request: way.wallet.signed(request, body))
    await way.refused(script, rejected(StatusCode.FAILED_PRECONDITION))


@pytest.mark.parametrize(
    ("tracer_id", "kept"),
    [
        ("a\x80\xffb\tc", "abc"),
    ],
)
async def test_tracer_id_is_told_as_printable_ascii(sync: Way, tracer_id: str, kept: str) -> None:
    def answer(request: Request) -> Answer:
        return sync.wallet.right(request).setting("Tracer-Id", tracer_id)

    assert (await sync.accepted(answers(answer))).tracer_id == kept


async def test_response_time_is_told(either: Way) -> None:
    sent_at = now()
    response = await either.accepted(answers(lambda request: either.wallet.signed(request, time=sent_at)))
    assert response.response_time.ToJsonString().replace("Z", "+00:00") == sent_at


async def test_response_time_that_an_envelope_does_not_say_is_unset(bind: Way) -> None:
    response = await bind.accepted(answers(lambda request: bind.wallet.signed(request, respTime=None)))
    assert not response.HasField("response_time")


async def test_harmless_variants_are_read(either: Way) -> None:
    sent_at = int(time.time()) * 1000

    def answer(request: Request) -> Answer:
        body = compact(result(code="CODE")).replace(b'"CODE"', b"200")
        signed = either.wallet.signed(request, body, time=str(sent_at))
        return signed.but(body=gzip.compress(signed.body)).setting("Content-Encoding", "gzip")

    response = await either.accepted(answers(answer))
    assert response.result.code == "200"
    assert response.response_time.ToMilliseconds() == sent_at


MALFORMED_BODIES = {
    "two results": b'{"result":' + compact(SUCCESS) + b',"result":' + compact(SUCCESS) + b"}",
    "no result": b"{}",
}


@pytest.mark.parametrize("name", MALFORMED_BODIES)
async def test_signed_answer_that_two_readers_could_read_differently_is_malformed(
    way: Way, name: str
) -> None:
    script = answers(lambda request: way.wallet.signed(request, MALFORMED_BODIES[name]))
    await way.refused(script, MALFORMED)


async def test_message_of_a_success_is_told_verbatim(either: Way) -> None:
    text = '成功 "quoted" \u2028 😀 ' + "長" * 2000
    response = await ok(either, result(message=text))
    assert response.result.message == text
