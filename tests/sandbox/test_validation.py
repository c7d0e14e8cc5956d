"""The strict check of members: each violation names its member and quotes no value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sandbox.validation import (
    BIND_ACCOUNT,
    HEAD,
    SYNC_LINKAGE,
    Rule,
    bind_account_violations,
    head_violations,
    sync_linkage_violations,
)
from tests.sandbox.callers import CLIENT_ID, FUNCTION, bind_body, sync_body

Check = Callable[[Mapping[str, Any]], list[str]]
FORM = '{"formCode":"","formValue":{"fieldCode1":"fieldValue1"}}'
HEAD_MEMBERS = {
    "version": "1.0.0",
    "function": FUNCTION,
    "clientId": CLIENT_ID,
    "reqTime": "2001-07-04T12:08:56+05:30",
    "reqMsgId": "fj398457jd8iue98d8w7w93j",
    "reserve": "{}",
}


def test_documented_members_are_accepted() -> None:
    assert sync_linkage_violations(sync_body()) == []
    every: dict[str, Any] = {"bindingTargetType": "PHONE", "bindingTarget": "85291234567", "expiryTime": 0}
    assert sync_linkage_violations(sync_body(externalBindingId="b", **every)) == []
    assert bind_account_violations(bind_body()) == []
    by_form = bind_body(source="BY_TEMPLATE", accountId=None, accountInfo=FORM, extendInfo="{}", openId="o")
    assert bind_account_violations(by_form) == []
    assert head_violations(HEAD_MEMBERS) == []


MEMBERS: dict[Check, dict[str, Any]] = {
    sync_linkage_violations: sync_body(),
    bind_account_violations: bind_body(),
    head_violations: HEAD_MEMBERS,
}
"""Valid members for each check."""
RULES = (
    *((sync_linkage_violations, rule) for rule in SYNC_LINKAGE),
    *((bind_account_violations, rule) for rule in BIND_ACCOUNT),
    *((head_violations, rule) for rule in HEAD),
)


@pytest.mark.parametrize(("check", "rule"), RULES)
def test_a_missing_member_is_named_if_required(check: Check, rule: Rule) -> None:
    for absent in (None, ""):
        faults = check(MEMBERS[check] | {rule.name: absent})
        assert (f"{rule.name}: required" in faults) is rule.required


LENGTHS: dict[Check, dict[str, int]] = {
    sync_linkage_violations: {
        **dict.fromkeys(("requestId", "externalBindingId", "externalIdentityValue", "bindingTarget"), 128),
        "userId": 64,
    },
    bind_account_violations: {
        **dict.fromkeys(("merchantAccountId", "subMerchantId", "accountId", "openId", "userId"), 64),
        **dict.fromkeys(("type", "subType"), 16),
    },
}


@pytest.mark.parametrize(
    ("check", "name", "most"),
    [(check, *row) for check, limits in LENGTHS.items() for row in limits.items()],
)
def test_lengths_are_counted_in_code_points(check: Check, name: str, most: int) -> None:
    assert check(MEMBERS[check] | {name: "𠮷" * most}) == []
    assert check(MEMBERS[check] | {name: "𠮷" * (most + 1)}) == [f"{name}: longer than {most} characters"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"requestId": 7}, "requestId: must be a string"),
        ({"bizTime": "1716331341000"}, "bizTime: must be a number of milliseconds"),
        ({"bizTime": True}, "bizTime: must be a number of milliseconds"),
        ({"bizTime": 1.5}, "bizTime: must be a number of milliseconds"),
        ({"bizTime": -1}, "bizTime: must be a number of milliseconds"),
        ({"expiryTime": 253_402_300_800_000}, "expiryTime: must be a number of milliseconds"),
        ({"bizType": "BINDING"}, "bizType: must be BINDING_SYNC"),
        ({"operateType": "bind"}, "operateType: must be BIND or UNBIND"),
        ({"externalIdentityType": []}, "externalIdentityType: must be UID or PHONE"),
        ({"bindingTargetType": "CARD"}, "bindingTarget: required unless bindingTargetType is USER_ID"),
        ({"nickname": "Tai Man"}, "nickname: not a member"),
        ({"n" * 65: "x"}, "n" * 64 + ": not a member"),
    ],
)
def test_a_violation_of_a_linkage_names_the_member(changes: dict[str, object], says: str) -> None:
    assert sync_linkage_violations({**sync_body(), **changes}) == [says]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"source": "TEMPLATE"}, ["source: must be BY_TEMPLATE or NORMAL"]),
        ({"accountId": None}, ["accountId: required unless source is BY_TEMPLATE"]),
        (
            {"source": "BY_TEMPLATE"},
            [
                "accountInfo: required when source is BY_TEMPLATE",
                "accountId: must be absent when source is BY_TEMPLATE",
            ],
        ),
        ({"accountInfo": {}}, ["accountInfo: must be a string that contains a JSON object"]),
        ({"accountInfo": "[]"}, ["accountInfo: must be a string that contains a JSON object"]),
        ({"accountInfo": "{}"}, ["accountInfo: must contain formCode, a string, and formValue, an object"]),
        (
            {"accountInfo": '{"formCode":"","formValue":{"a":1}}'},
            ["accountInfo: formValue must contain strings only"],
        ),
        ({"userId": None}, ["openId, userId: one of them is required"]),
        ({"timestamp": 1780849297416}, ["timestamp: must be a string of milliseconds"]),
        ({"timestamp": "253402300800000"}, ["timestamp: must be a string of milliseconds"]),
        ({"timestamp": "-1"}, ["timestamp: must be a string of milliseconds"]),
        ({"extendInfo": "[]"}, ["extendInfo: must be a string that contains a JSON object"]),
        ({"merchantId": "1"}, ["merchantId: not a member"]),
    ],
)
def test_a_violation_of_an_account_names_the_member(changes: dict[str, object], says: list[str]) -> None:
    assert bind_account_violations(bind_body(**changes)) == says


@pytest.mark.parametrize("time", ["2001-07-04T12:08:56", "now", 7])
def test_a_time_of_a_head_has_an_offset(time: object) -> None:
    assert head_violations({**HEAD_MEMBERS, "reqTime": time}) == [
        "reqTime: must be an ISO-8601 time with an offset"
    ]


def test_all_violations_are_found() -> None:
    assert len(sync_linkage_violations({})) == len([rule for rule in SYNC_LINKAGE if rule.required]) + 1
