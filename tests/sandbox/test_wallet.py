"""The wallet's data: one effect per request id, updates in the order of bizTime, bounded memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.wallet import Wallet
from tests.sandbox.callers import bind_body, sync_body

T0 = 1_716_331_341_000


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.time = datetime.fromtimestamp(T0 / 1000, UTC)

    def __call__(self) -> datetime:
        """Return the time."""
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wallet(clock: Clock) -> Wallet:
    return Wallet(clock)


def code(wallet: Wallet, request_id: str, **changes: object) -> str:
    return wallet.sync_linkage(request_id, sync_body(request_id, **changes)).result.code


def linkages(wallet: Wallet) -> list[Any]:
    found = wallet.snapshot()["linkages"]
    assert isinstance(found, list)
    return found


def counts(wallet: Wallet) -> Any:
    return wallet.snapshot()["requests"]


def test_bind_binds_and_unbind_unbinds(wallet: Wallet) -> None:
    assert code(wallet, "1") == "SUCCESS"
    assert [linkage["bound"] for linkage in linkages(wallet)] == [True]
    assert code(wallet, "2", operateType="UNBIND", bizTime=T0 + 1) == "SUCCESS"
    assert [linkage["bound"] for linkage in linkages(wallet)] == [False]
    assert counts(wallet)["SyncLinkage"]["2"] == {"effects": 1, "repeats": 0}


def test_unbind_of_an_unbound_linkage_fails(wallet: Wallet) -> None:
    assert code(wallet, "1", operateType="UNBIND") == "PROCESS_FAIL"
    code(wallet, "2")
    code(wallet, "3", operateType="UNBIND")
    assert code(wallet, "4", operateType="UNBIND") == "PROCESS_FAIL"
    assert counts(wallet)["SyncLinkage"]["4"] == {"effects": 0, "repeats": 0}


def test_repeated_request_id_gets_its_first_result_and_has_one_effect(wallet: Wallet) -> None:
    first = wallet.sync_linkage("1", sync_body("1"))
    code(wallet, "2", operateType="UNBIND", bizTime=T0 + 1)
    again = wallet.sync_linkage("1", sync_body("1"))
    assert again.result == first.result
    assert again.note == "the request id is known, so its first result is returned"
    assert [linkage["bound"] for linkage in linkages(wallet)] == [False]
    assert counts(wallet)["SyncLinkage"]["1"] == {"effects": 1, "repeats": 1}


def test_repeated_request_id_gets_its_first_failure(wallet: Wallet) -> None:
    code(wallet, "1", operateType="UNBIND")
    code(wallet, "2")
    assert code(wallet, "1", operateType="UNBIND") == "PROCESS_FAIL"


def test_known_request_id_with_other_content_is_noted_and_has_no_effect(wallet: Wallet) -> None:
    code(wallet, "1")
    again = wallet.sync_linkage("1", sync_body("1", userId="2160000000000002"))
    assert again.result.status == "S"
    assert again.note.endswith("although the content differs")
    assert len(linkages(wallet)) == 1


def test_other_order_of_members_is_the_same_content(wallet: Wallet) -> None:
    code(wallet, "1")
    again = wallet.sync_linkage("1", dict(reversed(sync_body("1").items())))
    assert again.note == "the request id is known, so its first result is returned"


def test_the_two_apis_have_their_own_request_ids(wallet: Wallet) -> None:
    wallet.bind_account("1", bind_body())
    assert wallet.sync_linkage("1", sync_body("1")).effects == 1


def test_older_biz_time_gets_s_and_changes_nothing(wallet: Wallet) -> None:
    code(wallet, "1", bizTime=T0 + 1, externalBindingId="new")
    assert code(wallet, "2", bizTime=T0, externalBindingId="old", operateType="UNBIND") == "SUCCESS"
    (linkage,) = linkages(wallet)
    assert (linkage["externalBindingId"], linkage["bound"]) == ("new", True)
    assert counts(wallet)["SyncLinkage"]["2"] == {"effects": 0, "repeats": 0}


def test_the_same_biz_time_overwrites(wallet: Wallet) -> None:
    code(wallet, "1")
    code(wallet, "2", operateType="UNBIND")
    assert [linkage["bound"] for linkage in linkages(wallet)] == [False]


@pytest.mark.parametrize(
    "changes",
    [
        {"externalIdentityType": "PHONE"},
        {"externalIdentityValue": "member-0002"},
        {"userId": "2160000000000002"},
        {"bindingTargetType": "CARD", "bindingTarget": "1"},
    ],
)
def test_each_part_of_a_linkage_distinguishes_linkages(wallet: Wallet, changes: dict[str, object]) -> None:
    code(wallet, "1")
    code(wallet, "2", **changes)
    assert len(linkages(wallet)) == 2


def test_external_binding_id_and_empty_target_do_not_distinguish_linkages(wallet: Wallet) -> None:
    code(wallet, "1")
    code(wallet, "2", externalBindingId="b", bindingTarget="")
    assert len(linkages(wallet)) == 1


def test_a_linkage_that_has_expired_is_not_bound(wallet: Wallet, clock: Clock) -> None:
    code(wallet, "1", expiryTime=T0 + 1000)
    assert [linkage["bound"] for linkage in linkages(wallet)] == [True]
    clock.time += timedelta(seconds=1)
    assert [linkage["bound"] for linkage in linkages(wallet)] == [False]
    assert code(wallet, "2", operateType="UNBIND") == "PROCESS_FAIL"


def test_an_account_is_bound_and_described(wallet: Wallet) -> None:
    outcome = wallet.bind_account("m-1", bind_body(subMerchantId="4555212345", openId="o-1"))
    assert (outcome.result.status, outcome.result.code, outcome.result.code_id) == ("S", "0000", "0000")
    assert outcome.result.message == "SUCCESS"
    assert outcome.members["needBind"] == "true"
    info: Any = outcome.members["accountInfo"]
    assert info["accountId"] == "88781108"
    assert (info["type"], info["subType"]) == ("TELECOM", "MOBILE_SERVICE")
    assert (info["status"], info["autoDebitStatus"]) == ("VALID", "UN_AUTO_DEBIT")
    assert info["merchant"] == {
        "merchantAccountId": "2160400000002012",
        "subMerchantId": "4555212345",
        "merchantName": "示例移动",
        "merchantEnglishName": "Example Mobile",
    }
    assert wallet.snapshot()["accounts"] == [
        {"reqMsgId": "m-1", "openId": "o-1", "userId": "2160000000000001", **info}
    ]


def test_an_account_without_a_sub_merchant_names_none(wallet: Wallet) -> None:
    info: Any = wallet.bind_account("m-1", bind_body()).members["accountInfo"]
    assert "subMerchantId" not in info["merchant"]


def test_repeated_message_id_gets_its_first_result(wallet: Wallet) -> None:
    first = wallet.bind_account("m-1", bind_body())
    again = wallet.bind_account("m-1", bind_body())
    assert (again.result, again.members) == (first.result, first.members)
    assert counts(wallet)["BindAccount"]["m-1"] == {"effects": 1, "repeats": 1}


def test_account_bound_before_has_need_bind_false(wallet: Wallet) -> None:
    wallet.bind_account("m-1", bind_body())
    assert wallet.bind_account("m-2", bind_body()).members["needBind"] == "false"
    assert wallet.bind_account("m-3", bind_body(userId="2")).members["needBind"] == "true"


def test_the_same_form_finds_the_same_account(wallet: Wallet) -> None:
    form = '{"formCode":"F1","formValue":{"a":"b"}}'
    by_form = bind_body(source="BY_TEMPLATE", accountId=None, accountInfo=form)
    first: Any = wallet.bind_account("m-1", by_form)
    second: Any = wallet.bind_account("m-2", by_form)
    assert first.members["accountInfo"]["accountId"] == second.members["accountInfo"]["accountId"]
    assert len(first.members["accountInfo"]["accountId"]) == 8
    assert second.members["needBind"] == "false"


def test_memory_is_bounded_and_the_oldest_entries_are_deleted_first(clock: Clock) -> None:
    wallet = Wallet(clock, remembered_max=3)
    for number in range(5):
        code(wallet, f"r-{number}", userId=f"u-{number}")
        wallet.bind_account(f"m-{number}", bind_body(userId=f"u-{number}"))
    assert [linkage["userId"] for linkage in linkages(wallet)] == ["u-2", "u-3", "u-4"]
    assert len(wallet.snapshot()["accounts"]) == 3  # type: ignore[arg-type]
    assert sum(len(ids) for ids in counts(wallet).values()) == 3


def test_reset_deletes_everything(wallet: Wallet) -> None:
    code(wallet, "1")
    wallet.bind_account("m-1", bind_body())
    wallet.reset()
    assert wallet.snapshot() == {"linkages": [], "accounts": [], "requests": {}}
