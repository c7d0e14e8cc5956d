"""What AlipayHK gets, byte for byte: the target, the headers, the envelope and the business content."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from tests.e2e.conftest import Way
from tests.e2e.samples import CLIENT_ID, FUNCTION, PATHS, at, bind_request, sync_request
from tests.e2e.upstream import Request, Upstream
from tests.e2e.wallet import head_of

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)"


def is_now(text: str) -> bool:
    """Whether a time is now, to the second and with its offset."""
    age = datetime.now(UTC) - datetime.fromisoformat(text)
    return bool(re.fullmatch(TIME, text)) and timedelta(seconds=-1) < age < timedelta(seconds=10)


async def sent(way: Way, request: Any) -> Request:
    """Call; return what came."""
    await way.accepted(request=request)
    return way.upstream.requests[0]


async def test_path_and_query_go_out_byte_for_byte(either: Way) -> None:
    await either.accepted()
    assert either.upstream.requests[0].line == f"POST {PATHS[either.api.name]} HTTP/1.1"


async def test_header_signed_request_has_its_headers_once(sync: Way) -> None:
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


async def test_no_answer_is_asked_for_in_a_coding(either: Way) -> None:
    await either.accepted()
    (request,) = either.upstream.requests
    assert request.header("Accept-Encoding") == "identity"
    assert request.header("Host") == f"127.0.0.1:{either.upstream.port}"
    assert not request.has("Transfer-Encoding")
    assert not request.has("Expect")


async def test_envelope_has_its_head_in_order(bind: Way) -> None:
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
    (came,) = bind.upstream.requests
    assert came.header("Content-Type") == "application/json; charset=UTF-8"
    assert not came.has("Signature")
    assert not came.has("Client-Id")


async def test_sample_with_every_member_arrives_byte_for_byte(either: Way) -> None:
    request: Any = either.api.request()
    came = await sent(either, request)
    assert either.wallet.business(came) == either.api.body(request.request_id)


async def test_absent_members_of_a_linkage_are_absent(sync: Way) -> None:
    request = sync_request(
        binding_target_type=pb.BINDING_TARGET_TYPE_USER_ID,
        binding_target=None,
        external_binding_id=None,
        expiry_time=None,
        operate_type=pb.OPERATE_TYPE_UNBIND,
        external_identity_type=pb.EXTERNAL_IDENTITY_TYPE_PHONE,
    )
    assert sync.wallet.business(await sent(sync, request)).decode() == (
        f'{{"requestId":"{request.request_id}","bizTime":1716331341123,"bizType":"BINDING_SYNC",'
        '"operateType":"UNBIND","externalIdentityType":"PHONE","externalIdentityValue":"會員-0001",'
        '"userId":"2160000000000001","bindingTargetType":"USER_ID"}'
    )


async def test_target_may_be_given_where_it_need_not_be(sync: Way) -> None:
    request = sync_request(binding_target_type=pb.BINDING_TARGET_TYPE_USER_ID)
    body = json.loads(sync.wallet.business(await sent(sync, request)))
    assert (body["bindingTargetType"], body["bindingTarget"]) == ("USER_ID", "6222020000000042")


async def test_phone_target_has_its_name(sync: Way) -> None:
    request = sync_request(binding_target_type=pb.BINDING_TARGET_TYPE_PHONE, binding_target="85291234567")
    body = json.loads(sync.wallet.business(await sent(sync, request)))
    assert (body["bindingTargetType"], body["bindingTarget"]) == ("PHONE", "85291234567")


@pytest.mark.parametrize(
    ("seconds", "nanos", "ms"),
    [
        (0, 0, 0),
        (0, 999_999, 0),
        (0, 1_000_000, 1),
        (1, 999_999_999, 1_999),
        (1_716_331_341, 123_000_000, 1_716_331_341_123),
        (1_716_331_341, 123_999_999, 1_716_331_341_123),
    ],
)
async def test_time_is_cut_to_milliseconds(either: Way, seconds: int, nanos: int, ms: int) -> None:
    name = "biz_time" if either.api.name == "SyncLinkage" else "timestamp"
    request = either.api.request(**{name: at(seconds, nanos)})
    business = either.wallet.business(await sent(either, request))
    wanted = f'"bizTime":{ms},' if name == "biz_time" else f'"timestamp":"{ms}",'
    assert wanted.encode() in business


@pytest.mark.parametrize(
    ("seconds", "nanos", "ms"), [(0, 0, 0), (253_402_300_799, 999_999_999, 253_402_300_799_999)]
)
async def test_expiry_reaches_from_1970_to_9999(sync: Way, seconds: int, nanos: int, ms: int) -> None:
    request = sync_request(expiry_time=at(seconds, nanos))
    assert sync.wallet.business(await sent(sync, request)).endswith(f'"expiryTime":{ms}}}'.encode())


async def test_absent_members_of_an_account_are_absent(bind: Way) -> None:
    request = bind_request(sub_merchant_id=None, open_id=None, extend_info=None)
    assert bind.wallet.business(await sent(bind, request)).decode() == (
        '{"merchantAccountId":"2160400000002012","type":"TELECOM","subType":"MOBILE_SERVICE",'
        '"source":"NORMAL","accountId":"賬戶-88781108","userId":"2160000000000001",'
        '"timestamp":"1716331341123"}'
    )


async def test_either_id_of_the_user_is_enough(bind: Way) -> None:
    request = bind_request(user_id=None)
    body = json.loads(bind.wallet.business(await sent(bind, request)))
    assert body["openId"] == request.open_id
    assert "userId" not in body


FORMS: list[tuple[dict[str, str], str]] = [
    ({}, "{}"),
    ({"b": "2", "a": "1", "B": "3"}, '{"B":"3","a":"1","b":"2"}'),
    ({"欄位": '值\\"/', "a10": "", "a9": " x "}, '{"a10":"","a9":" x ","欄位":"值\\\\\\"/"}'),
]


@pytest.mark.parametrize(("values", "written"), FORMS)
async def test_form_is_json_text_with_its_values_in_the_order_of_their_codes(
    bind: Way, values: dict[str, str], written: str
) -> None:
    form = pb.TemplateForm(form_code="表格-1", form_values=values)
    request = bind_request(account_id=None, template_form=form)
    business = bind.wallet.business(await sent(bind, request))
    body = json.loads(business)
    assert body["accountInfo"] == f'{{"formCode":"表格-1","formValue":{written}}}'
    assert list(body) == [
        "merchantAccountId", "subMerchantId", "type", "subType", "source", "accountInfo", "openId",
        "userId", "timestamp", "extendInfo",
    ]  # fmt: skip
    assert body["source"] == "BY_TEMPLATE"
    assert "表格-1".encode() in business


TEXTS = {
    "quotes": "\"'\\/",
    "escapes": "\\u0041\\n",
    "separators": "a\u2028b\u2029c",
    "astral": "𠮷𩸽😀",
    "combining": "e\u0301\u200d",
    "space": "  a  ",
    "plus and percent": "+%2B%",
    "markup": "</script>&amp;",
    "right to left": "\u202eabc",
    "noncharacters": "\ufffe\uffff\U0010ffff",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_text_goes_out_as_raw_utf_8_and_no_otherwise(either: Way, text: str) -> None:
    name = "external_identity_value" if either.api.name == "SyncLinkage" else "account_id"
    business = either.wallet.business(await sent(either, either.api.request(**{name: text})))
    wire_name = "externalIdentityValue" if name == "external_identity_value" else "accountId"
    assert json.loads(business)[wire_name] == text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    assert f'"{wire_name}":"{escaped}"'.encode() in business


EXTEND_INFOS = ['{"a":1}', ' { "a" : [1, 2.50, 1e300] } ', '{"\\u4f60": "\\ud83d\\ude00", "x": "你"}', "{}"]


@pytest.mark.parametrize("text", EXTEND_INFOS)
async def test_extend_info_goes_out_verbatim_as_text(bind: Way, text: str) -> None:
    body = json.loads(bind.wallet.business(await sent(bind, bind_request(extend_info=text))))
    assert body["extendInfo"] == text


async def test_connection_is_reused_only_under_a_promise(way: Way, upstream: Upstream) -> None:
    for _ in range(3):
        upstream.requests.clear()
        await way.accepted()
        await asyncio.sleep(0.2)  # a connection that has answered rests for 100 ms
    connections = upstream.connections
    assert connections <= 1 if way.promised else connections == 3
