"""Requests at the edges of every limit: what passes is sent, what does not is named and not sent."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc import StatusCode

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from tests.e2e import caller
from tests.e2e.caller import Reported, not_sent
from tests.e2e.conftest import Way
from tests.e2e.samples import BIND, SYNC, at, bind_request, sync_request
from tests.e2e.upstream import answers

INVALID = not_sent(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "new_request_id")
CHINESE, ASTRAL = "語", "𠮷"


async def invalid(way: Way, request: Any) -> Reported:
    """Call, and be told that the request is not valid."""
    right = answers(way.wallet.right)
    return await way.refused(right, INVALID, request)


def limits(*rows: tuple[str, int]) -> list[Any]:
    """Make a case of each limit and each kind of character."""
    return [
        pytest.param(name, limit, character, id=f"{name}-{kind}")
        for name, limit in rows
        for kind, character in (("ascii", "x"), ("chinese", CHINESE), ("astral", ASTRAL))
    ]


@pytest.mark.parametrize(
    ("name", "limit", "character"),
    limits(
        ("external_identity_value", 128),
        ("user_id", 64),
        ("binding_target", 128),
        ("external_binding_id", 128),
    ),
)
async def test_text_of_a_linkage_is_limited_in_code_points(
    sync: Way, name: str, limit: int, character: str
) -> None:
    await sync.accepted(request=sync_request(**{name: character * limit}))
    sync.upstream.requests.clear()
    assert (await invalid(sync, sync_request(**{name: character * (limit + 1)}))).fields == [name]


@pytest.mark.parametrize(
    ("name", "limit", "character"),
    limits(
        ("merchant_account_id", 64), ("sub_merchant_id", 64), ("type", 16), ("sub_type", 16),
        ("account_id", 64), ("open_id", 64), ("user_id", 64),
    ),
)  # fmt: skip
async def test_text_of_an_account_is_limited_in_code_points(
    bind: Way, name: str, limit: int, character: str
) -> None:
    await bind.accepted(request=bind_request(**{name: character * limit}))
    bind.upstream.requests.clear()
    assert (await invalid(bind, bind_request(**{name: character * (limit + 1)}))).fields == [name]


def id_limit(way: Way) -> int:
    """Return how long a request id may be."""
    return 128 if way.api is SYNC else 64


async def test_request_id_may_be_any_printable_ascii_as_long_as_it_is_short(either: Way) -> None:
    printable = "".join(map(chr, range(0x21, 0x7F)))
    pieces = [printable[: id_limit(either)], printable[-id_limit(either) :], "x" * id_limit(either), "-"]
    for request_id in pieces:
        either.upstream.requests.clear()
        await either.accepted(request=either.api.request(request_id=request_id))


@pytest.mark.parametrize(
    "text", ["", "a b", " a", "a ", "a\tb", "a\n", "\x7f", "é", "識別", "a\u200b", "x" * 129]
)
async def test_any_other_request_id_is_invalid(either: Way, text: str) -> None:
    reported = await invalid(either, either.api.request(request_id=text))
    assert reported.fields == ["request_id"]


async def test_request_id_of_bind_account_has_at_most_64_characters(bind: Way) -> None:
    assert (await invalid(bind, bind_request(request_id="x" * 65))).fields == ["request_id"]


@pytest.mark.parametrize("control", ["\x00", "\t", "\n", "\r", "\x1b", "\x7f", "\x80", "\x85", "\x9f"])
async def test_control_characters_are_invalid_everywhere(either: Way, control: str) -> None:
    request = either.api.request()
    texts = [
        field.name
        for field in request.DESCRIPTOR.fields
        if field.type == field.TYPE_STRING and field.name not in ("request_id", "account_id", "extend_info")
    ]
    bad = either.api.request(**dict.fromkeys(texts, f"a{control}b"))
    assert (await invalid(either, bad)).fields == texts


async def test_control_characters_are_invalid_in_a_form(bind: Way) -> None:
    for form in (
        pb.TemplateForm(form_code="F\n", form_values={"a": "b"}),
        pb.TemplateForm(form_code="F", form_values={"a\n": "b"}),
        pb.TemplateForm(form_code="F", form_values={"a": "b\x85"}),
    ):
        reported = await invalid(bind, bind_request(account_id=None, template_form=form))
        assert [name.startswith("template_form.") for name in reported.fields] == [True]


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [
        (-1, 0),
        (-1, 999_999_999),
        (253_402_300_800, 0),
        (0, -1),
        (0, 1_000_000_000),
        (1 << 62, 0),
        (-(1 << 62), 0),
    ],
)
@pytest.mark.parametrize("name", ["biz_time", "expiry_time", "timestamp"])
async def test_time_outside_1970_to_9999_is_invalid(
    sync: Way, bind: Way, name: str, seconds: int, nanos: int
) -> None:
    way = bind if name == "timestamp" else sync
    assert (await invalid(way, way.api.request(**{name: at(seconds, nanos)}))).fields == [name]


@pytest.mark.parametrize("name", ["biz_time", "external_identity_value", "user_id", "binding_target"])
async def test_required_member_of_a_linkage_is_missed(sync: Way, name: str) -> None:
    assert (await invalid(sync, sync_request(**{name: None}))).fields == [name]


@pytest.mark.parametrize("name", ["merchant_account_id", "type", "sub_type", "timestamp"])
async def test_required_member_of_an_account_is_missed(bind: Way, name: str) -> None:
    assert (await invalid(bind, bind_request(**{name: None}))).fields == [name]


@pytest.mark.parametrize("value", [0, 99, -1])
@pytest.mark.parametrize("name", ["operate_type", "external_identity_type", "binding_target_type"])
async def test_enum_without_a_known_value_is_invalid(sync: Way, name: str, value: int) -> None:
    assert name in (await invalid(sync, sync_request(**{name: value}))).fields


async def test_user_needs_one_of_two_ids(bind: Way) -> None:
    reported = await invalid(bind, bind_request(open_id=None, user_id=None))
    assert len(reported.fields) == 1


async def test_account_that_is_not_chosen_is_missed(bind: Way) -> None:
    assert (await invalid(bind, bind_request(account_id=None))).fields == ["account"]


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({"account_id": ""}, "account_id"),
        ({"account_id": None, "template_form": pb.TemplateForm()}, "template_form.form_code"),
    ],
)
async def test_account_that_is_chosen_but_empty_is_missed(
    bind: Way, chosen: dict[str, Any], field: str
) -> None:
    assert (await invalid(bind, bind_request(**chosen))).fields == [field]


def form_of(count: int) -> pb.TemplateForm:
    """Return a form with so many values."""
    return pb.TemplateForm(form_code="F", form_values={f"code{n}": f"value{n}" for n in range(count)})


async def test_form_has_at_most_64_values(bind: Way) -> None:
    await bind.accepted(request=bind_request(account_id=None, template_form=form_of(64)))
    bind.upstream.requests.clear()
    reported = await invalid(bind, bind_request(account_id=None, template_form=form_of(65)))
    assert reported.fields == ["template_form.form_values"]


def padded(length: int) -> str:
    """Return an object of so many bytes, most of them Chinese."""
    room = length - len('{"a":""}')
    return '{"a":"' + CHINESE * (room // 3) + "x" * (room % 3) + '"}'


async def test_extend_info_has_at_most_4096_bytes(bind: Way) -> None:
    assert len(padded(4096).encode()) == 4096
    await bind.accepted(request=bind_request(extend_info=padded(4096)))
    bind.upstream.requests.clear()
    assert (await invalid(bind, bind_request(extend_info=padded(4097)))).fields == ["extend_info"]


@pytest.mark.parametrize(
    "text",
    ["x", "[]", '"{}"', "1", "null", "{} {}", '{"a":1,"a":2}', '{"a":{"b":1,"b":1}}', '{"a":NaN}',
     '{"a":Infinity}', "{'a':1}", "{", "\ufeff{}", '{"a":' * 40 + "1" + "}" * 40],
)  # fmt: skip
async def test_extend_info_that_is_no_one_json_object_is_invalid(bind: Way, text: str) -> None:
    assert (await invalid(bind, bind_request(extend_info=text))).fields == ["extend_info"]


async def test_every_fault_is_named_at_once(either: Way) -> None:
    empty = pb.SyncLinkageRequest() if either.api is SYNC else pb.BindAccountRequest()
    reported = await invalid(either, empty)
    assert set(reported.fields) >= (
        {"request_id", "biz_time", "operate_type", "external_identity_type", "external_identity_value",
         "user_id", "binding_target_type"}
        if either.api is SYNC
        else {"request_id", "merchant_account_id", "type", "sub_type", "account", "timestamp"}
    )  # fmt: skip


async def test_request_id_of_an_invalid_request_is_not_spent(either: Way) -> None:
    request_id = either.api.request().request_id
    await invalid(either, either.api.request(request_id=request_id, user_id="x" * 65))
    await either.accepted(request=either.api.request(request_id=request_id))


async def test_biz_time_far_ahead_is_refused_with_its_field(sync: Way) -> None:
    expected = not_sent(StatusCode.INVALID_ARGUMENT, "BIZ_TIME_IN_FUTURE", "new_request_id")
    right = answers(sync.wallet.right)
    for ahead_s in (330, 10**9):
        request = sync_request(biz_time=at(now_s() + ahead_s))
        assert (await sync.refused(right, expected, request)).fields == ["biz_time"]
    await sync.accepted(request=sync_request(biz_time=at(now_s() + 270)))


async def test_other_times_may_be_in_the_future(sync: Way, bind: Way) -> None:
    await sync.accepted(request=sync_request(expiry_time=at(now_s() + 10**9)))
    bind.upstream.requests.clear()
    await bind.accepted(request=bind_request(timestamp=at(now_s() + 10**6)))


def now_s() -> int:
    """Tell the time."""
    return int(pb_now().seconds)


def pb_now() -> Any:
    """Tell the time as protobuf does."""
    time = at()
    time.GetCurrentTime()
    return time


UNDECODABLE = [b"\xff", b"\x0a\xff", b"\x0a\x01", b"\x0a\x02\xc3\x28", b"secret-4711", bytes(100)]


@pytest.mark.parametrize("data", UNDECODABLE)
async def test_bytes_that_are_not_the_message_are_invalid_without_more_words(
    either: Way, data: bytes
) -> None:
    reported = await caller.call(either.gateway.channel, either.api, data)
    caller.check(reported, INVALID)
    assert reported.message == (await invalid(either, either.api.request(request_id=""))).message
    assert either.upstream.requests == []


async def test_unknown_fields_are_passed_over(either: Way) -> None:
    request: Any = either.api.request()
    data = request.SerializeToString() + b"\xfa\x07\x03new"
    await caller.accepted(either.gateway.channel, either.api, type(request).FromString(data))
    either.check_sent(request)


async def test_message_that_is_too_large_is_grpcs_own_refusal(either: Way) -> None:
    large = pb.SyncLinkageRequest(user_id="x" * 70_000)
    reported = await caller.call(either.gateway.channel, either.api, large)
    assert reported.code is StatusCode.RESOURCE_EXHAUSTED
    assert not reported.status.details
    assert either.upstream.requests == []


async def test_unknown_method_is_grpcs_own_refusal(bind: Way) -> None:
    method: Any = bind.gateway.channel.unary_unary(BIND.path.replace("BindAccount", "UnbindAccount"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await method(b"")
    reported = caller.reported(raised.value)
    assert (reported.code, list(reported.status.details)) == (StatusCode.UNIMPLEMENTED, [])
