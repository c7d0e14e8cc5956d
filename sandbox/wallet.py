"""AlipayHK's data: linkages, bound accounts, and the first result of each request id.

There is no I/O, and the clock is an argument. At most REMEMBERED_MAX of each kind are kept; the oldest are
deleted first. BINDING_SYNC's page promises both rules that are implemented here: `requestId` is idempotent,
and `bizTime` determines the order of updates.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from clients.alipayhk.api import Api
from clients.alipayhk.wire.clock import Now
from clients.alipayhk.wire.result import Result
from clients.alipayhk.wire.strict_json import write_json

from .results import BIND_ACCOUNT_SUCCESS, SYNC_LINKAGE_SUCCESS, documented

REMEMBERED_MAX: Final = 100_000
LINKAGE: Final = (
    "externalIdentityType",
    "externalIdentityValue",
    "userId",
    "bindingTargetType",
    "bindingTarget",
)
ACCOUNT: Final = (
    "openId",
    "userId",
    "merchantAccountId",
    "subMerchantId",
    "type",
    "subType",
    "accountId",
)

Members = Mapping[str, object]
Id = TypeVar("Id")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a request."""

    result: Result
    note: str
    """A sentence for the log: what the wallet did, and why."""
    members: Members = field(default_factory=dict)
    """Members of the response's body in addition to the result."""
    effects: int = 0


@dataclass(slots=True)
class _Request:
    """A request id that was used."""

    outcome: Outcome
    content_sha256: bytes
    effects: int
    repeats: int = 0


class Wallet:
    """AlipayHK's data."""

    def __init__(self, now: Now, *, remembered_max: int = REMEMBERED_MAX) -> None:
        self._now = now
        self._remembered_max = remembered_max
        self._requests: OrderedDict[tuple[str, str], _Request] = OrderedDict()
        self._linkages: OrderedDict[tuple[object, ...], Members] = OrderedDict()
        self._accounts: OrderedDict[tuple[object, ...], Members] = OrderedDict()

    def sync_linkage(self, request_id: str, body: Members) -> Outcome:
        """Bind or unbind, once per requestId."""
        return self._once(Api.SYNC_LINKAGE, request_id, body, self._sync_linkage)

    def bind_account(self, request_id: str, body: Members) -> Outcome:
        """Bind a bill account, once per reqMsgId."""
        return self._once(Api.BIND_ACCOUNT, request_id, body, partial(self._bind_account, request_id))

    def reset(self) -> None:
        """Delete everything."""
        for remembered in (self._requests, self._linkages, self._accounts):
            remembered.clear()

    def snapshot(self) -> dict[str, object]:
        """Return all data with AlipayHK's names, oldest first."""
        requests: dict[str, dict[str, object]] = {}
        for (api, request_id), request in self._requests.items():
            counts = {"effects": request.effects, "repeats": request.repeats}
            requests.setdefault(api, {})[request_id] = counts
        return {
            "linkages": [
                {**linkage, "bound": self._is_bound(linkage)} for linkage in self._linkages.values()
            ],
            "accounts": list(self._accounts.values()),
            "requests": requests,
        }

    def _once(
        self, api: str, request_id: str, body: Members, apply: Callable[[Members], Outcome]
    ) -> Outcome:
        """Apply a request with a new id; for a known id, return the first outcome again."""
        body = {name: body[name] for name in sorted(body) if body[name] not in (None, "")}
        content = hashlib.sha256(write_json(body)).digest()
        known = self._requests.get((api, request_id))
        if known is not None:
            known.repeats += 1
            other = "" if known.content_sha256 == content else ", although the content differs"
            note = f"the request id is known, so its first result is returned{other}"
            return Outcome(known.outcome.result, note, known.outcome.members)
        outcome = apply(body)
        self._remember(self._requests, (api, request_id), _Request(outcome, content, outcome.effects))
        return outcome

    def _sync_linkage(self, body: Members) -> Outcome:
        """Apply an update unless a newer one is known; bizTime decides which is newer."""
        linkage = tuple(body.get(name) for name in LINKAGE)
        known = self._linkages.get(linkage)
        if known is not None and _biz_time(known) > _biz_time(body):
            note = "nothing is changed: an update with a newer bizTime is known for this linkage"
            return Outcome(SYNC_LINKAGE_SUCCESS, note)
        binding = body["operateType"] == "BIND"
        if not binding and (known is None or not self._is_bound(known)):
            return Outcome(documented("PROCESS_FAIL"), "UNBIND of a linkage that is not bound")
        self._remember(self._linkages, linkage, body)
        note = "the linkage is bound" if binding else "the linkage is unbound"
        return Outcome(SYNC_LINKAGE_SUCCESS, note, effects=1)

    def _bind_account(self, request_id: str, body: Members) -> Outcome:
        """Bind an account. `needBind` is "false" if this user has bound it before."""
        body = {**body, "accountId": body.get("accountId") or _account_id(str(body["accountInfo"]))}
        account = tuple(body.get(name) for name in ACCOUNT)
        known = account in self._accounts
        info = _account_info(body)
        owner = {name: body[name] for name in ("openId", "userId") if name in body}
        self._remember(self._accounts, account, {"reqMsgId": request_id, **owner, **info})
        return Outcome(
            BIND_ACCOUNT_SUCCESS,
            "the account was bound before, and is bound again" if known else "the account is bound",
            {"needBind": "false" if known else "true", "accountInfo": info},
            effects=1,
        )

    def _is_bound(self, linkage: Members) -> bool:
        expiry = linkage.get("expiryTime")
        expired = isinstance(expiry, int) and expiry <= self._now().timestamp() * 1000
        return linkage["operateType"] == "BIND" and not expired

    def _remember(self, remembered: OrderedDict[Id, Value], key: Id, value: Value) -> None:
        remembered[key] = value
        remembered.move_to_end(key)
        if len(remembered) > self._remembered_max:
            remembered.popitem(last=False)


def _biz_time(linkage: Members) -> int:
    time = linkage["bizTime"]
    return time if isinstance(time, int) else 0


def _account_id(form: str) -> str:
    """Return an account id for a form: eight digits, the same for the same form."""
    return str(int.from_bytes(hashlib.sha256(form.encode()).digest()) % 10**8).zfill(8)


def _account_info(body: Members) -> dict[str, object]:
    merchant = {"merchantAccountId": body["merchantAccountId"]}
    if "subMerchantId" in body:
        merchant["subMerchantId"] = body["subMerchantId"]
    return {
        "accountId": body["accountId"],
        "type": body["type"],
        "subType": body["subType"],
        "status": "VALID",
        "autoDebitStatus": "UN_AUTO_DEBIT",
        "merchant": {**merchant, "merchantName": "示例移动", "merchantEnglishName": "Example Mobile"},
        "name": "示例用户",
        "phone": "85290000000",
    }
