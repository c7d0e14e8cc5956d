"""Signed answers are read leniently after an S, and strictly as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from grpc import StatusCode

from tests.e2e.caller import alarm, rejected
from tests.e2e.conftest import Way
from tests.e2e.samples import BIND, SYNC
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


async def test_account_may_be_text_that_holds_json(bind: Way) -> None:
    account: Any = BIND.success["accountInfo"]
    as_text = account | {"merchant": json.dumps(account["merchant"])}
    one = await ok(bind, dict(BIND.success))
    bind.upstream.requests.clear()
    other = await ok(bind, {**BIND.success, "accountInfo": json.dumps(as_text, ensure_ascii=False)})
    assert one.account == other.account


@pytest.mark.parametrize(
    ("merchant", "merchant_account_id"),
    [
        ({"merchantId": "2"}, "2"),
        ({"merchantAccountId": "1"}, "1"),
        ({"merchantId": "2", "merchantAccountId": "1"}, "1"),
        ({"merchantId": "2", "merchantAccountId": ""}, "2"),
        ({"merchantId": "2", "merchantAccountId": 1}, "2"),
        ({}, ""),
    ],
)
async def test_either_name_of_the_merchants_id_is_read_and_the_first_wins(
    bind: Way, merchant: dict[str, Any], merchant_account_id: str
) -> None:
    response = await ok(bind, {"result": SUCCESS, "accountInfo": {"merchant": merchant}})
    assert response.account.merchant.merchant_account_id == merchant_account_id


NEITHER: tuple[Any, ...] = ("yes", "", "1", 1, 0, None, [], {}, [True])


@pytest.mark.parametrize(
    ("value", "need_bind"),
    [
        ("true", True),
        ("false", False),
        *((odd, None) for odd in NEITHER),
    ],
)
async def test_need_bind_is_unset_where_it_says_neither(
    bind: Way, value: object, need_bind: bool | None
) -> None:
    response = await ok(bind, {"result": SUCCESS, "needBind": value})
    assert (response.need_bind if response.HasField("need_bind") else None) is need_bind


async def test_need_bind_that_is_absent_is_unset(bind: Way) -> None:
    response = await ok(bind, {"result": SUCCESS})
    assert not response.HasField("need_bind")
    assert not response.HasField("account")


@pytest.mark.parametrize("name", ["result", "resultInfo"])
@pytest.mark.parametrize("message", ["resultMessage", "resultMsg"])
@pytest.mark.parametrize("code", ["0000", "00000000", "SUCCESS", "9999"])
async def test_result_may_have_either_name_and_any_code(
    either: Way, name: str, message: str, code: str
) -> None:
    response = await ok(either, {name: {"resultStatus": "S", "resultCode": code, message: "好"}})
    assert (response.result.code, response.result.message) == (code, "好")


ODD_VALUES = (
    "1",
    "true",
    "null",
    "[]",
    "{}",
    '[{"a":[]}]',
    '""',
    '"\\ud800"',
    '"\\udfff x"',
    '"\\u0000"',
)


@pytest.mark.parametrize("value", ODD_VALUES)
async def test_odd_members_beside_an_s_never_undo_it(way: Way, value: str) -> None:
    members = {
        "result": ("resultCode", "resultCodeId", "resultMessage", "resultMsg"),
        "accountInfo": ("accountId", "type", "status", "merchant", "name", "phone"),
    }
    for name, inside in members.items():
        written = ",".join(f'"{member}":{value}' for member in inside)
        status = '"resultStatus":"S",' if name == "result" else ""
        rest = "" if name == "result" else f',"result":{json.dumps(SUCCESS)}'
        body = f'{{"{name}":{{{status}{written}}}{rest},"needBind":{value},"more":{value}}}'
        way.upstream.requests.clear()
        await ok(way, body.encode())


@pytest.mark.parametrize(
    "value", [*ODD_VALUES, '"{"', '"[]"', '"{\\"merchant\\":\\"{\\"}"', '"{\\"a\\":1,\\"a\\":2}"']
)
async def test_odd_account_never_undoes_an_s(bind: Way, value: str) -> None:
    for body in (f'"accountInfo":{value}', f'"accountInfo":{{"merchant":{value}}}'):
        bind.upstream.requests.clear()
        await ok(bind, f'{{"result":{json.dumps(SUCCESS)},{body}}}'.encode())


async def test_lone_surrogate_in_text_within_text_never_undoes_an_s(bind: Way) -> None:
    account = json.dumps('{"name":"\\ud800","merchant":"{\\"merchantName\\":\\"\\\\ud800\\"}"}')
    response = await ok(bind, f'{{"result":{json.dumps(SUCCESS)},"accountInfo":{account}}}'.encode())
    assert response.account.name == "\ufffd"


@pytest.mark.parametrize("odd", ["resultMessage", "resultCode"])
async def test_lone_surrogate_in_a_failure_is_told(way: Way, odd: str) -> None:
    failure = {"resultStatus": "F", "resultCode": "X", "resultMessage": "y"} | {odd: "@"}
    body = compact({"result": failure}).replace(b"@", b"\\ud800")
    script = answers(lambda request: way.wallet.signed(request, body))
    await way.refused(script, rejected(StatusCode.FAILED_PRECONDITION))


@pytest.mark.parametrize(
    ("tracer_id", "kept"),
    [
        ("abcdefg135202000000000263818", "abcdefg135202000000000263818"),
        ("", ""),
        ("x" * 1000, "x" * 128),
        ("a\x80\xffb\tc", "abc"),
        ("追".encode().decode("latin-1") + "1", "1"),
    ],
)
async def test_tracer_id_is_told_as_printable_ascii(sync: Way, tracer_id: str, kept: str) -> None:
    def answer(request: Request) -> Answer:
        return sync.wallet.right(request).setting("Tracer-Id", tracer_id)

    assert (await sync.accepted(answers(answer))).tracer_id == kept


async def test_two_tracer_ids_never_undo_an_s(way: Way) -> None:
    await way.accepted(answers(lambda request: way.wallet.right(request).setting("Tracer-Id", "a", "b")))


async def test_response_time_is_told(either: Way) -> None:
    time = now()
    response = await either.accepted(answers(lambda request: either.wallet.signed(request, time=time)))
    assert response.response_time.ToJsonString().replace("Z", "+00:00") == time


async def test_response_time_that_an_envelope_does_not_say_is_unset(bind: Way) -> None:
    response = await bind.accepted(answers(lambda request: bind.wallet.signed(request, respTime=None)))
    assert not response.HasField("response_time")


def nested(depth: int) -> bytes:
    """Nest lists so deep beside a result."""
    return b'{"result":' + compact(SUCCESS) + b',"x":' + b"[" * depth + b"]" * depth + b"}"


MALFORMED_BODIES = {
    "two results": b'{"result":' + compact(SUCCESS) + b',"result":' + compact(SUCCESS) + b"}",
    "two members deep inside": b'{"result":' + compact(SUCCESS) + b',"x":{"a":1,"a":1}}',
    "the same name, escaped": b'{"result":' + compact(SUCCESS) + b',"\\u0072esult":{}}',
    "NaN": b'{"result":' + compact(SUCCESS) + b',"x":NaN}',
    "Infinity": b'{"result":' + compact(SUCCESS) + b',"x":-Infinity}',
    "depth 100": nested(100),
    "depth 60,000": nested(60_000),
    "bad UTF-8": b'{"result":' + compact(SUCCESS) + b',"x":"\xc3\x28"}',
    "UTF-8 surrogate": b'{"result":' + compact(SUCCESS) + b',"x":"\xed\xa0\x80"}',
    "trailing comma": b'{"result":' + compact(SUCCESS) + b",}",
    "single quotes": b"{'result':{}}",
    "bare control": b'{"result":' + compact(SUCCESS) + b',"x":"\n"}',
    "no result": b"{}",
    "result null": b'{"result":null}',
    "result a list": b'{"result":[]}',
    "result text": b'{"result":"S"}',
    "no status": b'{"result":{"resultCode":"SUCCESS"}}',
    "status a number": b'{"result":{"resultStatus":1}}',
    "status a list": b'{"result":{"resultStatus":["S"]}}',
}


@pytest.mark.parametrize("name", MALFORMED_BODIES)
async def test_signed_answer_that_two_readers_could_read_differently_is_malformed(
    way: Way, name: str
) -> None:
    script = answers(lambda request: way.wallet.signed(request, MALFORMED_BODIES[name]))
    await way.refused(script, MALFORMED)


HEADER_SIGNED_BODIES = {
    "nothing": b"",
    "a list": b"[]",
    "text": b'"S"',
    "text after it": compact(SYNC.success) + b"x",
    "two objects": compact(SYNC.success) * 2,
    "byte order mark": b"\xef\xbb\xbf" + compact(SYNC.success),
    "UTF-16": compact(SYNC.success).decode().encode("utf-16"),
    "cut": compact(SYNC.success)[:-1],
}


@pytest.mark.parametrize("name", HEADER_SIGNED_BODIES)
async def test_header_signed_body_that_is_no_one_object_is_malformed(sync: Way, name: str) -> None:
    script = answers(lambda request: sync.wallet.signed(request, HEADER_SIGNED_BODIES[name]))
    await sync.refused(script, MALFORMED)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b'"x"',
        b"null",
        b"{}",
        b'{"head":[],"body":{}}',
        b'{"head":{},"body":[]}',
        b'{"head":{},"head":{},"body":{}}',
    ],
)
async def test_signed_envelope_of_the_wrong_shape_is_malformed_or_replayed(
    bind: Way, content: bytes
) -> None:
    await bind.refused(answers(lambda _: bind.wallet.enveloped(content)), MALFORMED)


async def test_space_around_a_header_signed_object_is_json(sync: Way) -> None:
    await ok(sync, b" \r\n\t" + compact(SYNC.success) + b"\n ")


async def test_message_of_a_success_is_told_verbatim(either: Way) -> None:
    text = '成功 "quoted" \u2028 😀 ' + "長" * 2000
    response = await ok(either, result(message=text))
    assert response.result.message == text
