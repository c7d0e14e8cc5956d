"""Check the members of a request strictly. A violation names the member and never quotes its value.

Sources: AlipayHK's pages "Synchronize Account Linkage Status" (BINDING_SYNC) and "9. Account Binding"
(account.bind), and for the envelope's head
https://docs.alipay.hk/alipayhkdocs/hk/a_points_display/api_structure_v1
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from clients.alipayhk.wire.clock import time_of
from clients.alipayhk.wire.protocols.header_signed import REQUEST_TIME
from clients.alipayhk.wire.strict_json import JsonError, read_object

MILLISECONDS_MAX: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""
NAME_CHARACTERS_MAX: Final = 64
_MILLISECONDS: Final = re.compile("[0-9]{1,15}")

Members = Mapping[str, object]
Check = Callable[[object], str]
"""Returns what is wrong with a value, or an empty string."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One documented member."""

    name: str
    check: Check
    required: bool = False


def sync_linkage_violations(body: Members) -> list[str]:
    """Return all violations in the body of a BINDING_SYNC."""
    found = violations(SYNC_LINKAGE, body)
    if body.get("bindingTargetType") != "USER_ID" and _absent(body, "bindingTarget"):
        found.append("bindingTarget: required unless bindingTargetType is USER_ID")
    return found


def bind_account_violations(body: Members) -> list[str]:
    """Return all violations in the body of an account.bind."""
    found = violations(BIND_ACCOUNT, body)
    if body.get("source") == "BY_TEMPLATE":
        if _absent(body, "accountInfo"):
            found.append("accountInfo: required when source is BY_TEMPLATE")
        if not _absent(body, "accountId"):
            found.append("accountId: must be absent when source is BY_TEMPLATE")
    elif _absent(body, "accountId"):
        found.append("accountId: required unless source is BY_TEMPLATE")
    if _absent(body, "openId") and _absent(body, "userId"):
        found.append("openId, userId: one of them is required")
    return found


def head_violations(head: Members) -> list[str]:
    """Return all violations in the head of an envelope."""
    return violations(HEAD, head)


def header_violations(headers: Members) -> list[str]:
    """Return all violations in the signed headers of a header-signed request."""
    return violations(HEADERS, headers)


def violations(rules: tuple[Rule, ...], members: Members) -> list[str]:
    """Check members against rules; an empty member counts as absent."""
    found = []
    for rule in rules:
        if _absent(members, rule.name):
            found += [f"{rule.name}: required"] if rule.required else []
        elif wrong := rule.check(members[rule.name]):
            found.append(f"{rule.name}: {wrong}")
    known = {rule.name for rule in rules}
    return found + [f"{name[:NAME_CHARACTERS_MAX]}: not a member" for name in members if name not in known]


def text(characters_max: int) -> Check:
    """Return a check for a string of at most `characters_max` code points."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            return "must be a string"
        return f"longer than {characters_max} characters" if len(value) > characters_max else ""

    return check


def one_of(*values: str) -> Check:
    """Return a check for one of these strings."""
    return lambda value: "" if value in values else f"must be {' or '.join(values)}"


def milliseconds(value: object) -> str:
    """Check for a time as an integer of milliseconds."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MILLISECONDS_MAX:
        return ""
    return "must be a number of milliseconds"


def milliseconds_text(value: object) -> str:
    """Check for a time as a string of decimal milliseconds."""
    if isinstance(value, str) and _MILLISECONDS.fullmatch(value) and int(value) <= MILLISECONDS_MAX:
        return ""
    return "must be a string of milliseconds"


def time_text(value: object) -> str:
    """Check for an ISO-8601 time with an offset."""
    try:
        time_of(value if isinstance(value, str) else "")
    except ValueError:
        return "must be an ISO-8601 time with an offset"
    return ""


def object_text(value: object) -> str:
    """Check for a string that contains a JSON object."""
    return "" if _object_in(value) is not None else "must be a string that contains a JSON object"


def form_text(value: object) -> str:
    """Check for a string with a form: `{"formCode":"","formValue":{"fieldCode1":"fieldValue1"}}`."""
    form = _object_in(value)
    if form is None:
        return "must be a string that contains a JSON object"
    fields = form.get("formValue")
    if not isinstance(form.get("formCode"), str) or not isinstance(fields, dict):
        return "must contain formCode, a string, and formValue, an object"
    return (
        ""
        if all(isinstance(field, str) for field in fields.values())
        else "formValue must contain strings only"
    )


def _object_in(value: object) -> dict[str, object] | None:
    try:
        return read_object(value.encode()) if isinstance(value, str) else None
    except JsonError:
        return None


def _absent(members: Members, name: str) -> bool:
    return members.get(name) in (None, "")


SYNC_LINKAGE: Final = (
    Rule("requestId", text(128), required=True),
    Rule("bizTime", milliseconds, required=True),
    Rule("bizType", one_of("BINDING_SYNC"), required=True),
    Rule("externalBindingId", text(128)),
    Rule("operateType", one_of("BIND", "UNBIND"), required=True),
    Rule("externalIdentityType", one_of("UID", "PHONE"), required=True),
    Rule("externalIdentityValue", text(128), required=True),
    Rule("userId", text(64), required=True),
    Rule("bindingTargetType", one_of("USER_ID", "CARD", "PHONE"), required=True),
    Rule("bindingTarget", text(128)),
    Rule("expiryTime", milliseconds),
)

BIND_ACCOUNT: Final = (
    Rule("merchantAccountId", text(64), required=True),
    Rule("subMerchantId", text(64)),
    Rule("type", text(16), required=True),
    Rule("subType", text(16), required=True),
    Rule("source", one_of("BY_TEMPLATE", "NORMAL"), required=True),
    Rule("accountInfo", form_text),
    Rule("accountId", text(64)),
    Rule("openId", text(64)),
    Rule("userId", text(64)),
    Rule("timestamp", milliseconds_text, required=True),
    Rule("extendInfo", object_text),
)

HEADERS: Final = (Rule(REQUEST_TIME, time_text, required=True),)

HEAD: Final = (
    Rule("version", text(8), required=True),
    Rule("function", text(128), required=True),
    # The documented limit is 8, but AlipayHK's own sample has 16 characters.
    Rule("clientId", text(128), required=True),
    Rule("reqTime", time_text, required=True),
    Rule("reqMsgId", text(64), required=True),
    Rule("reserve", text(256)),
)
