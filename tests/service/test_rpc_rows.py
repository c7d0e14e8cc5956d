"""The row of each RPC: its command, the body with AlipayHK's names, and the reply."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from clients.alipayhk.api import API_NAMES
from clients.alipayhk.wire.result import Result
from clients.alipayhk.wire.strict_json import write_json
from service.server.linkage_service import RPCS
from service.server.rpcs import Rpc, bind_account, sync_linkage
from service.server.validation import SECONDS_MAX, violations
from tests.service.fakes import bind_request, sync_request, verified

# -- the table


def test_both_rpcs_are_found_by_their_paths() -> None:
    assert RPCS == {
        "/alipayhk.linkage.v1.LinkageService/SyncLinkage": sync_linkage.RPC,
        "/alipayhk.linkage.v1.LinkageService/BindAccount": bind_account.RPC,
    }


def test_an_allow_list_can_name_each_rpc() -> None:
    assert {rpc.name for rpc in RPCS.values()} == set(API_NAMES)


def test_only_sync_linkage_has_a_biz_time_that_orders_updates() -> None:
    assert sync_linkage.RPC.biz_time_ms(sync_linkage.command(sync_request())) == 1_700_000_000_123
    assert bind_account.RPC.biz_time_ms(bind_account.command(bind_request())) is None


# -- bodies, exactly as they are sent


def form(values: dict[str, str], code: str = "F1") -> dict[str, Any]:
    """Return the changes that replace the account id by a form."""
    return {"account_id": None, "template_form": {"form_code": code, "form_values": values}}


SYNC_BODIES: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "absent members are left out": (
        {},
        (
            '{"requestId":"req-1","bizTime":1700000000123,"bizType":"BINDING_SYNC","operateType":"BIND",'
            '"externalIdentityType":"UID","externalIdentityValue":"member-0001","userId":"2160000000000001",'
            '"bindingTargetType":"USER_ID"}'
        ),
    ),
    "every member, in a fixed order": (
        {
            "operate_type": pb.OPERATE_TYPE_UNBIND,
            "external_identity_type": pb.EXTERNAL_IDENTITY_TYPE_PHONE,
            "binding_target_type": pb.BINDING_TARGET_TYPE_CARD,
            "binding_target": "6222",
            "external_binding_id": "b-1",
            "expiry_time": {"seconds": 2, "nanos": 999_999_999},
        },
        (
            '{"requestId":"req-1","bizTime":1700000000123,"bizType":"BINDING_SYNC","externalBindingId":"b-1",'
            '"operateType":"UNBIND","externalIdentityType":"PHONE","externalIdentityValue":"member-0001",'
            '"userId":"2160000000000001","bindingTargetType":"CARD","bindingTarget":"6222","expiryTime":2999}'
        ),
    ),
    "text is unchanged UTF-8": (
        {"external_identity_value": ' 陳𠮷é"\\/ ', "binding_target_type": pb.BINDING_TARGET_TYPE_PHONE}
        | {"binding_target": "+852"},
        (
            '{"requestId":"req-1","bizTime":1700000000123,"bizType":"BINDING_SYNC","operateType":"BIND",'
            '"externalIdentityType":"UID","externalIdentityValue":" 陳𠮷é\\"\\\\/ ",'
            '"userId":"2160000000000001","bindingTargetType":"PHONE","bindingTarget":"+852"}'
        ),
    ),
    "the time 0 is present, not absent": (
        {"biz_time": {}, "expiry_time": {}},
        (
            '{"requestId":"req-1","bizTime":0,"bizType":"BINDING_SYNC","operateType":"BIND",'
            '"externalIdentityType":"UID","externalIdentityValue":"member-0001","userId":"2160000000000001",'
            '"bindingTargetType":"USER_ID","expiryTime":0}'
        ),
    ),
}

BIND_BODIES: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "an account by its id is NORMAL": (
        {},
        (
            '{"merchantAccountId":"2160400000002012","type":"TELECOM","subType":"MOBILE_SERVICE",'
            '"source":"NORMAL","accountId":"88781108","userId":"2160000000000001",'
            '"timestamp":"1700000000123"}'
        ),
    ),
    "a form is BY_TEMPLATE, in JSON text, its values in the order of their codes": (
        form({"b": "2", "a": "1", "B": "3", "é": "語", "a1": '"'}),
        (
            '{"merchantAccountId":"2160400000002012","type":"TELECOM","subType":"MOBILE_SERVICE",'
            '"source":"BY_TEMPLATE","accountInfo":"{\\"formCode\\":\\"F1\\",\\"formValue\\":{\\"B\\":\\"3\\",'
            '\\"a\\":\\"1\\",\\"a1\\":\\"\\\\\\"\\",\\"b\\":\\"2\\",\\"é\\":\\"語\\"}}",'
            '"userId":"2160000000000001","timestamp":"1700000000123"}'
        ),
    ),
    "a form without values has an empty object of them": (
        form({}),
        (
            '{"merchantAccountId":"2160400000002012","type":"TELECOM","subType":"MOBILE_SERVICE",'
            '"source":"BY_TEMPLATE","accountInfo":"{\\"formCode\\":\\"F1\\",\\"formValue\\":{}}",'
            '"userId":"2160000000000001","timestamp":"1700000000123"}'
        ),
    ),
    "every member, in a fixed order, extend_info unchanged": (
        {
            "sub_merchant_id": "s",
            "open_id": "o",
            "timestamp": {},
            "extend_info": '{ "b": 1.0, "a":"\\u8a9e" }',
        },
        (
            '{"merchantAccountId":"2160400000002012","subMerchantId":"s","type":"TELECOM",'
            '"subType":"MOBILE_SERVICE","source":"NORMAL","accountId":"88781108","openId":"o",'
            '"userId":"2160000000000001","timestamp":"0",'
            '"extendInfo":"{ \\"b\\": 1.0, \\"a\\":\\"\\\\u8a9e\\" }"}'
        ),
    ),
}


@pytest.mark.parametrize(("changes", "text"), SYNC_BODIES.values(), ids=SYNC_BODIES.keys())
def test_the_body_of_a_sync_linkage(changes: dict[str, Any], text: str) -> None:
    request = sync_request(**changes)
    assert not violations(sync_linkage.RULES, request)
    assert write_json(sync_linkage.body(sync_linkage.command(request))).decode() == text


@pytest.mark.parametrize(("changes", "text"), BIND_BODIES.values(), ids=BIND_BODIES.keys())
def test_the_body_of_a_bind_account(changes: dict[str, Any], text: str) -> None:
    request = bind_request(**changes)
    assert not violations(bind_account.RULES, request)
    assert write_json(bind_account.body(bind_account.command(request))).decode() == text


@pytest.mark.parametrize(
    ("seconds", "nanos", "milliseconds"),
    [
        (0, 0, 0),
        (0, 999_999, 0),
        (0, 1_000_000, 1),
        (1, 1_999_999, 1001),
        (1, 999_999_999, 1999),
        (SECONDS_MAX, 999_999_999, 253_402_300_799_999),
    ],
)
def test_times_are_truncated_to_milliseconds(seconds: int, nanos: int, milliseconds: int) -> None:
    time = {"seconds": seconds, "nanos": nanos}
    synced = sync_linkage.command(sync_request(biz_time=time, expiry_time=time))
    assert (synced.biz_time_ms, synced.expiry_time_ms) == (milliseconds, milliseconds)
    assert bind_account.command(bind_request(timestamp=time)).timestamp_ms == milliseconds


@pytest.mark.parametrize(
    ("rpc", "request_"), [(sync_linkage.RPC, sync_request()), (bind_account.RPC, bind_request())]
)
def test_a_command_is_frozen_and_shows_nothing(rpc: Rpc, request_: Any) -> None:
    command = rpc.command(request_)
    with pytest.raises(AttributeError):
        command.user_id = "other"
    assert "2160000000000001" not in repr(command)


# -- any valid request


texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)
ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)
times = st.fixed_dictionaries(
    {"seconds": st.integers(0, SECONDS_MAX), "nanos": st.integers(0, 999_999_999)}
)


def up_to(length: int) -> st.SearchStrategy[str]:
    return texts.map(lambda text: text[:length])


syncs = st.builds(
    sync_request,
    request_id=ids,
    biz_time=times,
    operate_type=st.sampled_from([1, 2]),
    external_identity_type=st.sampled_from([1, 2]),
    external_identity_value=up_to(128),
    user_id=up_to(64),
    binding_target_type=st.sampled_from([1, 2, 3]),
    binding_target=up_to(128),
    external_binding_id=st.none() | up_to(128),
    expiry_time=st.none() | times,
)
form_values = st.dictionaries(
    up_to(20), st.text(st.characters(exclude_categories=["Cc", "Cs"])), max_size=64
)
accounts = st.fixed_dictionaries({"account_id": up_to(64)}) | st.builds(form, form_values, up_to(40))
binds = st.builds(
    lambda account, **fields: bind_request(**fields, **account),
    accounts,
    request_id=ids,
    merchant_account_id=up_to(64),
    sub_merchant_id=st.none() | up_to(64),
    type=up_to(16),
    sub_type=up_to(16),
    open_id=up_to(64),
    user_id=st.none() | up_to(64),
    timestamp=times,
    extend_info=st.none()
    | st.dictionaries(up_to(9), up_to(9)).map(lambda value: write_json(value).decode()),
)


def shuffled(request: Any) -> Any:
    """Return an equal request with its map filled in the opposite order."""
    other = type(request).FromString(request.SerializeToString())
    if isinstance(other, pb.BindAccountRequest) and other.HasField("template_form"):
        values = dict(request.template_form.form_values)
        other.template_form.form_values.clear()
        for code in reversed(list(values)):
            other.template_form.form_values[code] = values[code]
    return other


@given(syncs | binds)
def test_equal_valid_requests_have_equal_bodies(request: Any) -> None:
    rpc = sync_linkage.RPC if isinstance(request, pb.SyncLinkageRequest) else bind_account.RPC
    assert not violations(rpc.rules, request)
    command = rpc.command(request)
    data = write_json(rpc.body(command))
    assert data == write_json(rpc.body(command))
    assert data == write_json(rpc.body(rpc.command(shuffled(request))))
    members = json.loads(data)
    assert write_json(members) == data
    assert None not in members.values()
    assert "" not in members.values()


# -- replies


def test_the_reply_to_sync_linkage_contains_the_result_unchanged() -> None:
    answer = replace(verified(), result=Result("S", "SUCCESS", "0000", " 成功\n"))
    expected = pb.SyncLinkageResponse(
        result=pb.Result(status="S", code="SUCCESS", code_id="0000", message=" 成功\n"),
        tracer_id="tracer-1",
    )
    expected.response_time.FromDatetime(datetime(2026, 3, 1, 8, 0, 1, tzinfo=UTC))
    assert sync_linkage.reply(answer) == expected


@pytest.mark.parametrize("rpc", RPCS.values(), ids=lambda rpc: rpc.name)
def test_a_result_with_status_s_only_is_a_success(rpc: Rpc) -> None:
    answer = replace(verified(code=""), response_time=None, tracer_id="")
    response: Any = rpc.reply(answer)
    assert response == rpc.response(result=pb.Result(status="S"))
    assert not response.HasField("response_time")
    assert not response.replayed
    assert not response.resolved_by_operator


@pytest.mark.parametrize("rpc", RPCS.values(), ids=lambda rpc: rpc.name)
def test_the_response_time_is_in_utc(rpc: Rpc) -> None:
    hong_kong = timezone(timedelta(hours=8))
    answer = replace(verified(), response_time=datetime(2026, 3, 1, 16, 0, 1, tzinfo=hong_kong))
    response: Any = rpc.reply(answer)
    assert response.response_time.ToJsonString() == "2026-03-01T08:00:01Z"


NEED_BIND: Final[list[tuple[object, bool | None]]] = [
    ("true", True),
    ("false", False),
    (True, True),
    (False, False),
    ("", None),
    ("yes", None),
    ("1", None),
    (1, None),
    (0, None),
    (None, None),
    ([], None),
    ({}, None),
    (["true"], None),
    ({"true": "true"}, None),
    (1.5, None),
]


@pytest.mark.parametrize(("value", "read"), NEED_BIND, ids=[repr(value) for value, _ in NEED_BIND])
def test_need_bind_is_set_only_for_true_and_false(value: object, read: bool | None) -> None:
    response = bind_account.reply(verified(needBind=value))
    assert (response.need_bind if response.HasField("need_bind") else None) is read
    assert not bind_account.reply(verified()).HasField("need_bind")


ACCOUNT: Final[dict[str, object]] = {
    "accountId": "88701108",
    "type": "TELECOM",
    "subType": "MOBILE_SERVICE",
    "status": "VALID",
    "autoDebitStatus": "UN_AUTO_DEBIT",
    "merchant": {
        "merchantAccountId": "m1",
        "merchantId": "m2",
        "subMerchantId": "s1",
        "merchantName": "中國移動",
        "merchantEnglishName": "China Mobile",
    },
    "name": " Chan Tai Man ",
    "phone": "85291234567",
}
MERCHANT: Final = pb.Merchant(
    merchant_account_id="m1",
    sub_merchant_id="s1",
    merchant_name="中國移動",
    merchant_english_name="China Mobile",
)
WHOLE: Final = pb.Account(
    account_id="88701108",
    type="TELECOM",
    sub_type="MOBILE_SERVICE",
    status="VALID",
    auto_debit_status="UN_AUTO_DEBIT",
    merchant=MERCHANT,
    name=" Chan Tai Man ",
    phone="85291234567",
)


def text(value: object) -> str:
    return write_json(value).decode()


ACCOUNTS: Final[dict[str, tuple[object, pb.Account | None]]] = {
    "an object, as in the sample": (ACCOUNT, WHOLE),
    "a string with an object, as in the table": (text(ACCOUNT), WHOLE),
    "a merchant that is a string, too": (
        {"merchant": text(ACCOUNT["merchant"])},
        pb.Account(merchant=MERCHANT),
    ),
    "the deprecated name of the merchant's id": (
        {"merchant": {"merchantId": "m2"}},
        pb.Account(merchant=pb.Merchant(merchant_account_id="m2")),
    ),
    "the deprecated name and an empty new one": (
        {"merchant": {"merchantAccountId": "", "merchantId": "m2"}},
        pb.Account(merchant=pb.Merchant(merchant_account_id="m2")),
    ),
    "an empty object": ({}, pb.Account()),
    "members of other types are ignored": (
        {"accountId": 88701108.0, "type": None, "status": ["VALID"], "name": {"en": "x"}, "phone": True},
        pb.Account(),
    ),
    "ids that are numbers": (
        {
            "accountId": 88701108,
            "merchant": {"merchantAccountId": 12345678901234567890, "subMerchantId": 0},
        },
        pb.Account(
            account_id="88701108",
            merchant=pb.Merchant(merchant_account_id="12345678901234567890", sub_merchant_id="0"),
        ),
    ),
    "an id that is true": ({"accountId": True}, pb.Account()),
    "a string with a byte order mark": ('\ufeff{"accountId":"1"}', pb.Account(account_id="1")),
    "unknown members": ({"accountId": "1", "new": {"a": [1]}}, pb.Account(account_id="1")),
    "no merchant": ({"accountId": "1"}, pb.Account(account_id="1")),
    "a merchant that is neither object nor JSON": (
        {"accountId": "1", "merchant": "m1"},
        pb.Account(account_id="1"),
    ),
    "nothing": (None, None),
    "an array": ([ACCOUNT], None),
    "a number": (1, None),
    "an empty string": ("", None),
    "a string that is no JSON": ("{", None),
    "a string with an array": ("[]", None),
    "a string with two members of one name": ('{"accountId":"1","accountId":"2"}', None),
    "a string nested too deeply": ('{"a":' * 40 + "1" + "}" * 40, None),
}


@pytest.mark.parametrize(("value", "read"), ACCOUNTS.values(), ids=ACCOUNTS.keys())
def test_an_account_is_read_leniently_and_the_success_remains(
    value: object, read: pb.Account | None
) -> None:
    response = bind_account.reply(verified(accountInfo=value))
    assert response.result.status == "S"
    assert (response.account if response.HasField("account") else None) == read


def test_a_lone_surrogate_in_an_account_is_replaced() -> None:
    response = bind_account.reply(verified(accountInfo='{"name":"a\\ud800","phone":"1"}'))
    assert response.account.name.rstrip("\ufffd") == "a"
    assert response.account.phone == "1"


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*ACCOUNT, "merchantId"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(account=json_values, need_bind=json_values)
def test_a_success_remains_whatever_the_optional_members_are(account: object, need_bind: object) -> None:
    response = bind_account.reply(verified(accountInfo=account, needBind=need_bind))
    assert response.result.status == "S"
    assert response.SerializeToString()
