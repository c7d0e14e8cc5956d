"""The validation rules of requests at their limits. No violation quotes a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from clients.alipayhk.wire.strict_json import write_json
from service.outcomes.refusal import Violation
from service.server.rpcs import Rpc, bind_account, sync_linkage
from service.server.validation import has_control, is_request_id, violations
from tests.service.fakes import bind_request, sync_request

Faults = list[tuple[str, str]]
SECONDS_MAX: Final = 253_402_300_799
SYNC_ID: Final = ("request_id", "must be 1 to 128 printable ASCII characters without space")
BIND_ID: Final = ("request_id", "must be 1 to 64 printable ASCII characters without space")
FOUR_BYTES: Final = "𠮷"
CONTROLS: Final = [chr(number) for number in (*range(0x20), *range(0x7F, 0xA0))]


def found(rpc: Rpc, request: Message) -> Faults:
    return [(fault.field, fault.description) for fault in violations(rpc.rules, request)]


def form(**changes: Any) -> dict[str, Any]:
    """Return the changes that replace the account id by a form."""
    return {"account_id": None, "template_form": {"form_code": "F1", "form_values": {"a": "b"}} | changes}


def too_long(name: str, length_max: int) -> tuple[str, str]:
    return name, f"has more than {length_max} characters"


def required(name: str) -> tuple[str, str]:
    return name, "is required"


def control(name: str) -> tuple[str, str]:
    return name, "has control characters"


def not_a_time(name: str) -> tuple[str, str]:
    return name, "is not a time from 1970 to 9999"


def not_a_value(name: str) -> tuple[str, str]:
    return name, "is not a value of this enum"


def not_json(cause: str) -> tuple[str, str]:
    return "extend_info", f"must be a JSON object: {cause}"


FORM_VALUES: Final = "template_form.form_values"
CARD: Final = {"binding_target_type": pb.BINDING_TARGET_TYPE_CARD}

SYNC_ROWS: Final[dict[str, tuple[dict[str, Any], Faults]]] = {
    "a request with only the required fields is valid": ({}, []),
    "a request with every field is valid": (
        CARD
        | {
            "operate_type": pb.OPERATE_TYPE_UNBIND,
            "external_identity_type": pb.EXTERNAL_IDENTITY_TYPE_PHONE,
            "binding_target": "6222",
            "external_binding_id": "b-1",
            "expiry_time": {"seconds": 1},
        },
        [],
    ),
    "request_id has 128 characters": ({"request_id": "~" * 128}, []),
    "request_id has 129": ({"request_id": "~" * 129}, [SYNC_ID]),
    "request_id has a space": ({"request_id": "a b"}, [SYNC_ID]),
    "request_id ends with a line break": ({"request_id": "a\n"}, [SYNC_ID]),
    "request_id is not ASCII": ({"request_id": "é"}, [SYNC_ID]),
    "request_id has DEL": ({"request_id": "a\x7f"}, [SYNC_ID]),
    "biz_time is the earliest": ({"biz_time": {"seconds": 0}}, []),
    "biz_time is the latest": ({"biz_time": {"seconds": SECONDS_MAX, "nanos": 999_999_999}}, []),
    "biz_time is before 1970": (
        {"biz_time": {"seconds": -1, "nanos": 999_999_999}},
        [not_a_time("biz_time")],
    ),
    "biz_time is after 9999": ({"biz_time": {"seconds": SECONDS_MAX + 1}}, [not_a_time("biz_time")]),
    "biz_time has too many nanos": (
        {"biz_time": {"seconds": 1, "nanos": 1_000_000_000}},
        [not_a_time("biz_time")],
    ),
    "biz_time has negative nanos": ({"biz_time": {"seconds": 1, "nanos": -1}}, [not_a_time("biz_time")]),
    "operate_type is no value": ({"operate_type": 3}, [not_a_value("operate_type")]),
    "operate_type is negative": ({"operate_type": -1}, [not_a_value("operate_type")]),
    "external_identity_type is no value": (
        {"external_identity_type": 3},
        [not_a_value("external_identity_type")],
    ),
    "external_identity_value is too long and has a control character": (
        {"external_identity_value": "\t" * 129},
        [too_long("external_identity_value", 128), control("external_identity_value")],
    ),
    "external_identity_value is one space": ({"external_identity_value": " "}, []),
    "binding_target_type is no value": ({"binding_target_type": 4}, [not_a_value("binding_target_type")]),
    "binding_target is required for a card": (CARD, [required("binding_target")]),
    "binding_target is required for a phone": (
        {"binding_target_type": pb.BINDING_TARGET_TYPE_PHONE},
        [required("binding_target")],
    ),
    "binding_target is allowed for a user id": ({"binding_target": "x"}, []),
    "expiry_time is the earliest": ({"expiry_time": {}}, []),
    "expiry_time is before 1970": ({"expiry_time": {"seconds": -1}}, [not_a_time("expiry_time")]),
    "expiry_time is after 9999": ({"expiry_time": {"seconds": 2**63 - 1}}, [not_a_time("expiry_time")]),
}

BIND_ROWS: Final[dict[str, tuple[dict[str, Any], Faults]]] = {
    "a request with only the required fields is valid": ({}, []),
    "a request with every field is valid": (
        form() | {"sub_merchant_id": "s", "open_id": "o", "extend_info": '{"a":1}'},
        [],
    ),
    "request_id has 64 characters": ({"request_id": "!" * 64}, []),
    "request_id has 65": ({"request_id": "!" * 65}, [BIND_ID]),
    "an account id that is present and empty is required": ({"account_id": ""}, [required("account_id")]),
    "a form without values is valid": (form(form_values={}), []),
    "a form needs a code": (form(form_code=""), [required("template_form.form_code")]),
    "a form's code has no limit": (form(form_code="a" * 5000), []),
    "a form's code has a control character": (form(form_code="a\0"), [control("template_form.form_code")]),
    "a form has 64 values": (form(form_values={f"c{number}": "" for number in range(64)}), []),
    "a form has 65": (
        form(form_values={f"c{number}": "" for number in range(65)}),
        [(FORM_VALUES, "has more than 64 values")],
    ),
    "a form has a value without a code": (
        form(form_values={"": "v"}),
        [(FORM_VALUES, "has a value without a field code")],
    ),
    "a form's field code has a control character": (form(form_values={"a\n": "v"}), [control(FORM_VALUES)]),
    "a form's value has a control character": (form(form_values={"a": "\x85"}), [control(FORM_VALUES)]),
    "a form has every fault": (
        form(form_code="", form_values={"": "\0"} | {f"c{number}": "" for number in range(64)}),
        [
            required("template_form.form_code"),
            (FORM_VALUES, "has more than 64 values"),
            (FORM_VALUES, "has a value without a field code"),
            control(FORM_VALUES),
        ],
    ),
    "open_id alone is enough": ({"user_id": "", "open_id": "o"}, []),
    "timestamp is the earliest": ({"timestamp": {}}, []),
    "timestamp is before 1970": ({"timestamp": {"seconds": -1}}, [not_a_time("timestamp")]),
    "timestamp is after 9999": ({"timestamp": {"seconds": SECONDS_MAX + 1}}, [not_a_time("timestamp")]),
    "extend_info is an empty object": ({"extend_info": "{}"}, []),
    "extend_info has 4096 bytes": ({"extend_info": '{"a":"%s"}' % ("a" * 4088)}, []),
    "extend_info has 4097": (
        {"extend_info": '{"a":"%s"}' % ("a" * 4089)},
        [("extend_info", "has more than 4096 bytes")],
    ),
    "extend_info has 4098 bytes in fewer characters": (
        {"extend_info": '{"a":"%s"}' % ("語" * 1363 + "a")},
        [("extend_info", "has more than 4096 bytes")],
    ),
    "extend_info is text": ({"extend_info": "x"}, [not_json("not JSON in UTF-8")]),
    "extend_info is an array": ({"extend_info": "[]"}, [not_json("not a JSON object")]),
    "extend_info is null": ({"extend_info": "null"}, [not_json("not a JSON object")]),
    "extend_info is followed by something": ({"extend_info": "{} {}"}, [not_json("not JSON in UTF-8")]),
    "extend_info has two members of one name": (
        {"extend_info": '{"a":1,"a":2}'},
        [not_json("two members have the same name")],
    ),
    "extend_info has NaN": ({"extend_info": '{"a":NaN}'}, [not_json("NaN and infinities are not JSON")]),
    "extend_info has a number that is too large": (
        {"extend_info": '{"a":1e999}'},
        [not_json("a number is too large")],
    ),
    "extend_info is nested 33 levels deep": (
        {"extend_info": '{"a":' * 33 + "1" + "}" * 33},
        [not_json("nested too deeply")],
    ),
    "extend_info is nested 32 levels deep": ({"extend_info": '{"a":' * 32 + "1" + "}" * 32}, []),
    "extend_info has a line break": ({"extend_info": '{\n"a":1}'}, [control("extend_info")]),
    "extend_info is only spaces": ({"extend_info": " "}, [not_json("not JSON in UTF-8")]),
}


@pytest.mark.parametrize(("changes", "faults"), SYNC_ROWS.values(), ids=SYNC_ROWS.keys())
def test_sync_linkage(changes: dict[str, Any], faults: Faults) -> None:
    assert found(sync_linkage.RPC, sync_request(**changes)) == faults


@pytest.mark.parametrize(("changes", "faults"), BIND_ROWS.values(), ids=BIND_ROWS.keys())
def test_bind_account(changes: dict[str, Any], faults: Faults) -> None:
    assert found(bind_account.RPC, bind_request(**changes)) == faults


# -- all violations of a request, in order


EMPTY: Final[dict[Rpc, Faults]] = {
    sync_linkage.RPC: [
        SYNC_ID,
        required("biz_time"),
        required("operate_type"),
        required("external_identity_type"),
        required("external_identity_value"),
        required("user_id"),
        required("binding_target_type"),
    ],
    bind_account.RPC: [
        BIND_ID,
        required("merchant_account_id"),
        required("type"),
        required("sub_type"),
        ("account", "is required: account_id or template_form"),
        ("open_id", "is required unless user_id is given"),
        required("timestamp"),
    ],
}


@pytest.mark.parametrize(("rpc", "faults"), EMPTY.items())
def test_an_empty_request_misses_every_required_field_in_order(rpc: Rpc, faults: Faults) -> None:
    assert found(rpc, rpc.request()) == faults


@pytest.mark.parametrize(("rows", "rpc"), [(SYNC_ROWS, sync_linkage.RPC), (BIND_ROWS, bind_account.RPC)])
def test_a_violation_contains_the_path_of_a_field(
    rows: dict[str, tuple[dict[str, Any], Faults]], rpc: Rpc
) -> None:
    fields = rpc.request.DESCRIPTOR.fields_by_name
    for _, faults in rows.values():
        for name, _ in faults:
            first, _, rest = name.partition(".")
            assert first in fields or first in rpc.request.DESCRIPTOR.oneofs_by_name
            if rest:
                message = fields[first].message_type
                assert message is not None
                assert rest in message.fields_by_name


MAKE: Final[dict[Rpc, Callable[..., Message]]] = {
    sync_linkage.RPC: sync_request,
    bind_account.RPC: bind_request,
}
LENGTHS: Final[dict[Rpc, dict[str, int]]] = {
    sync_linkage.RPC: {
        "external_identity_value": 128,
        "user_id": 64,
        "binding_target": 128,
        "external_binding_id": 128,
    },
    bind_account.RPC: {
        **dict.fromkeys(("merchant_account_id", "sub_merchant_id", "account_id", "open_id", "user_id"), 64),
        **dict.fromkeys(("type", "sub_type"), 16),
    },
}
"""The limits of texts, in code points."""
TEXTS: Final[dict[Rpc, tuple[str, ...]]] = {
    sync_linkage.RPC: tuple(LENGTHS[sync_linkage.RPC]),
    bind_account.RPC: (*LENGTHS[bind_account.RPC], "extend_info"),
}


@pytest.mark.parametrize(
    ("rpc", "name", "limit"), [(rpc, *row) for rpc, limits in LENGTHS.items() for row in limits.items()]
)
def test_the_length_of_a_text_is_limited_in_code_points(rpc: Rpc, name: str, limit: int) -> None:
    assert found(rpc, MAKE[rpc](**{name: FOUR_BYTES * limit})) == []
    for character in (FOUR_BYTES, "a"):
        assert found(rpc, MAKE[rpc](**{name: character * (limit + 1)})) == [too_long(name, limit)]


@pytest.mark.parametrize(("rpc", "name"), [(rpc, name) for rpc, names in TEXTS.items() for name in names])
def test_control_characters_are_invalid_in_every_text(rpc: Rpc, name: str) -> None:
    for character in CONTROLS:
        assert control(name) in found(rpc, MAKE[rpc](**{name: f"a{character}b"})), repr(character)


@pytest.mark.parametrize(
    "character", ["\u200b", "\u202e", "\u2028", "\ufeff", "\xa0", "\xad", "\ue000", "\U0010ffff"]
)
def test_unusual_characters_are_allowed(character: str) -> None:
    assert not has_control(character)
    assert not found(sync_linkage.RPC, sync_request(user_id=f"a{character}b"))


def test_texts_lists_every_text_field() -> None:
    for rpc, names in TEXTS.items():
        fields = rpc.request.DESCRIPTOR.fields
        texts = {field.name for field in fields if field.cpp_type == field.CPPTYPE_STRING}
        assert {*names, "request_id"} == texts


@pytest.mark.parametrize("rpc", [sync_linkage.RPC, bind_account.RPC], ids=lambda rpc: rpc.name)
def test_a_request_id_is_valid_in_an_otherwise_invalid_request(rpc: Rpc) -> None:
    assert rpc.valid_request_id(rpc.request(request_id="req-1")) == "req-1"
    assert rpc.valid_request_id(rpc.request(request_id="req 1")) == ""
    assert rpc.valid_request_id(rpc.request(request_id="a" * (rpc.request_id_max + 1))) == ""
    assert rpc.valid_request_id(object()) == ""


# -- arbitrary messages


MARK: Final = "⟪secret⟫"
texts = st.text(max_size=150) | st.text(st.characters(categories=["Cc", "Zl", "Cf", "So"]), max_size=8)
marked = st.builds(lambda before, after: before + MARK + after, texts, texts)
moments = st.none() | st.fixed_dictionaries(
    {"seconds": st.integers(-(2**63), 2**63 - 1), "nanos": st.integers(-(2**31), 2**31 - 1)}
)
enums = st.sampled_from([0, 1, 2, 3, 4, -1, 2**31 - 1, -(2**31)])
json_texts = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.just(MARK),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(marked, inner, max_size=3),
    max_leaves=8,
).map(lambda value: write_json(value).decode())
extend_infos = marked | json_texts | st.text('{}[]",:\\u0d8 a1eN' + MARK, max_size=40)


def messages(
    text: st.SearchStrategy[str], extend_info: st.SearchStrategy[str]
) -> st.SearchStrategy[Message]:
    """Return arbitrary messages of both request types with these texts."""
    forms = st.fixed_dictionaries(
        {"form_code": text, "form_values": st.dictionaries(text, text, max_size=70)}
    )
    sync = st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("request_id", *TEXTS[sync_linkage.RPC]), text),
            **dict.fromkeys(("biz_time", "expiry_time"), moments),
            **dict.fromkeys(("operate_type", "external_identity_type", "binding_target_type"), enums),
        },
    )
    single = [name for name in TEXTS[bind_account.RPC] if name != "account_id"]
    bind = st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("request_id", *single), text),
            "timestamp": moments,
            "extend_info": extend_info,
        },
    )
    accounts = (
        st.none() | st.tuples(st.just("account_id"), text) | st.tuples(st.just("template_form"), forms)
    )
    return st.builds(lambda fields: pb.SyncLinkageRequest(**fields), sync) | st.builds(
        lambda fields, account: pb.BindAccountRequest(**fields, **(dict([account]) if account else {})),
        bind,
        accounts,
    )


def rpc_of(request: Message) -> Rpc:
    return sync_linkage.RPC if isinstance(request, pb.SyncLinkageRequest) else bind_account.RPC


@given(messages(texts, extend_infos))
def test_any_message_can_be_validated_and_a_valid_one_can_be_sent(request: Message) -> None:
    rpc = rpc_of(request)
    if not violations(rpc.rules, request):
        command = rpc.command(request)
        assert write_json(rpc.body(command))
        assert is_request_id(command.request_id, rpc.request_id_max)


@given(messages(marked, extend_infos))
def test_no_violation_quotes_a_value(request: Message) -> None:
    rpc = rpc_of(request)
    for violation in violations(rpc.rules, request):
        assert MARK not in violation.field + violation.description
        assert violation == Violation(violation.field, violation.description)
        assert (violation.field + violation.description).isascii()
