"""BindAccount: AlipayHK's "Account Binding", alipay.intl.merchant.account.bind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from clients.alipayhk.api import Api
from clients.alipayhk.wire import lenient
from clients.alipayhk.wire.messages import VerifiedResponse
from clients.alipayhk.wire.result import id_text_of, text_of
from clients.alipayhk.wire.strict_json import JsonError, read_object, write_json

from ...outcomes.refusal import Violation
from ..validation import (
    any_of,
    has_control,
    json_object,
    request_id,
    required_moment,
    text,
)
from . import Rpc, milliseconds
from .result import set_result

SOURCE_NORMAL: Final = "NORMAL"
SOURCE_BY_TEMPLATE: Final = "BY_TEMPLATE"
REQUEST_ID_MAX: Final = 64
FORM_VALUES_MAX: Final = 64
EXTEND_INFO_BYTES_MAX: Final = 4096
_ACCOUNT_ID: Final = text("account_id", 64)
_FORM_CODE: Final = text("form_code")


def _account(request: pb.BindAccountRequest) -> Iterator[Violation]:
    match request.WhichOneof("account"):
        case "account_id":
            yield from _ACCOUNT_ID(request)
        case "template_form":
            yield from _template_form(request.template_form)
        case _:
            yield Violation("account", "is required: account_id or template_form")


def _template_form(form: pb.TemplateForm) -> Iterator[Violation]:
    for violation in _FORM_CODE(form):
        yield Violation(f"template_form.{violation.field}", violation.description)
    values = form.form_values
    # Field codes are texts of the caller, so violations do not quote them.
    faults = {
        f"has more than {FORM_VALUES_MAX} values": len(values) > FORM_VALUES_MAX,
        "has a value without a field code": "" in values,
        "has control characters": any(map(has_control, values)) or any(map(has_control, values.values())),
    }
    yield from (Violation("template_form.form_values", fault) for fault, found in faults.items() if found)


RULES: Final = (
    request_id(REQUEST_ID_MAX),
    text("merchant_account_id", 64),
    text("sub_merchant_id", 64, optional=True),
    text("type", 16),
    text("sub_type", 16),
    _account,
    any_of("open_id", "user_id"),
    text("open_id", 64, optional=True),
    text("user_id", 64, optional=True),
    required_moment("timestamp"),
    text("extend_info", optional=True),
    json_object("extend_info", EXTEND_INFO_BYTES_MAX),
)


@dataclass(frozen=True, slots=True, repr=False)
class Command:
    """One account to bind; absent members are empty."""

    request_id: str
    merchant_account_id: str
    sub_merchant_id: str
    type: str
    sub_type: str
    account_id: str
    form: Mapping[str, object] | None
    """The form in AlipayHK's names; None if the account is identified by `account_id`."""
    open_id: str
    user_id: str
    timestamp_ms: int
    extend_info: str


def command(request: pb.BindAccountRequest) -> Command:
    """Convert a request that has passed the rules."""
    return Command(
        request_id=request.request_id,
        merchant_account_id=request.merchant_account_id,
        sub_merchant_id=request.sub_merchant_id,
        type=request.type,
        sub_type=request.sub_type,
        account_id=request.account_id,
        form=_form(request.template_form) if request.HasField("template_form") else None,
        open_id=request.open_id,
        user_id=request.user_id,
        timestamp_ms=milliseconds(request.timestamp),
        extend_info=request.extend_info,
    )


def _form(form: pb.TemplateForm) -> dict[str, object]:
    """Convert a form, with its values sorted by code: a protobuf map has no order."""
    return {"formCode": form.form_code, "formValue": dict(sorted(form.form_values.items()))}


def body(command: Command) -> dict[str, object]:
    """Convert the command to AlipayHK's names, in a fixed order and without absent members."""
    members = {
        "merchantAccountId": command.merchant_account_id,
        "subMerchantId": command.sub_merchant_id,
        "type": command.type,
        "subType": command.sub_type,
        "source": SOURCE_NORMAL if command.form is None else SOURCE_BY_TEMPLATE,
        "accountInfo": "" if command.form is None else write_json(command.form).decode(),
        "accountId": command.account_id,
        "openId": command.open_id,
        "userId": command.user_id,
        "timestamp": str(command.timestamp_ms),
        "extendInfo": command.extend_info,
    }
    return {name: value for name, value in members.items() if value}


def reply(verified: VerifiedResponse) -> pb.BindAccountResponse:
    """Convert a verified success; an invalid or missing optional member never makes it a failure."""
    account = _account_message(_object(verified.body.get("accountInfo")))
    response = pb.BindAccountResponse(account=account)
    set_result(response, verified)
    if (need_bind := _need_bind(verified.body.get("needBind"))) is not None:
        response.need_bind = need_bind
    return response


def _need_bind(value: object) -> bool | None:
    """Read the string "true" or "false", or a JSON boolean; return None for anything else."""
    return {"true": True, "false": False}.get(str(value).lower())


def _object(value: object) -> Mapping[str, object] | None:
    """Read an object, or a string with one: AlipayHK documents a String, but its sample has an object."""
    if isinstance(value, str):
        try:
            return read_object(lenient.json_bytes(value.encode()), huge_as_infinite=True)
        except JsonError:
            return None
    return value if isinstance(value, dict) else None


def _account_message(members: Mapping[str, object] | None) -> pb.Account | None:
    if members is None:
        return None
    return pb.Account(
        account_id=id_text_of(members.get("accountId")),
        type=text_of(members.get("type")),
        sub_type=text_of(members.get("subType")),
        status=text_of(members.get("status")),
        auto_debit_status=text_of(members.get("autoDebitStatus")),
        merchant=_merchant_message(_object(members.get("merchant"))),
        name=text_of(members.get("name")),
        phone=text_of(members.get("phone")),
    )


def _merchant_message(members: Mapping[str, object] | None) -> pb.Merchant | None:
    if members is None:
        return None
    return pb.Merchant(
        merchant_account_id=id_text_of(members.get("merchantAccountId"))
        or id_text_of(members.get("merchantId")),
        sub_merchant_id=id_text_of(members.get("subMerchantId")),
        merchant_name=text_of(members.get("merchantName")),
        merchant_english_name=text_of(members.get("merchantEnglishName")),
    )


RPC: Final = Rpc(
    name=Api.BIND_ACCOUNT,
    request=pb.BindAccountRequest,
    response=pb.BindAccountResponse,
    request_id_max=REQUEST_ID_MAX,
    rules=RULES,
    command=command,
    body=body,
    reply=reply,
    linkage=lambda _: None,
    biz_time_ms=lambda _: None,
)
