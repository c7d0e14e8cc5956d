"""The APIs that the sandbox plays: one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from clients.alipayhk.api import Api
from clients.alipayhk.diagnosis import ROWS
from clients.alipayhk.diagnosis.protocol_row import ProtocolRow
from clients.alipayhk.wire.endpoint import WireProtocol
from clients.alipayhk.wire.messages import VerifiedRequest
from clients.alipayhk.wire.protocols.envelope_signed import EnvelopeSigned
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned
from clients.alipayhk.wire.result import Result, text_of

from .results import bind_account_result, sync_linkage_result
from .validation import (
    bind_account_violations,
    head_violations,
    header_violations,
    sync_linkage_violations,
)
from .wallet import Outcome, Wallet

Members = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ServedApi:
    """One API as the sandbox serves it."""

    name: Api
    protocol: type[WireProtocol]
    path: str
    """The path, unless the flag `path_flag` gives another one."""
    path_help: str
    request_id: Callable[[Members, Members], str]
    """Return the request id, given the head and the body."""
    violations: Callable[[VerifiedRequest], list[str]]
    apply: Callable[[Wallet, str, Members], Outcome]
    result: Callable[[Result], dict[str, object]]
    """Return a result with the member names of this API."""
    function: str = ""
    """The function in the head of its envelope, unless the flag `function_flag` gives another one."""
    function_flag: str = ""
    """The flag of its function, without the dashes in front; empty if the API has no envelope."""

    @property
    def row(self) -> ProtocolRow:
        """What diagnosis and faults need of the API's protocol."""
        return ROWS[self.protocol]

    @property
    def path_flag(self) -> str:
        """The command line flag for the path, without the leading dashes."""
        return f"{self.name.name.lower().replace('_', '-')}-path"


def magic_id(body: Members) -> tuple[str, str]:
    """Return name and value of the member that can name a fault: userId, or openId if it is absent."""
    name = "userId" if body.get("userId") else "openId"
    return name, text_of(body.get(name))


_ROWS: Final = (
    ServedApi(
        name=Api.SYNC_LINKAGE,
        protocol=HeaderSigned,
        path="/sandbox/binding/sync",
        path_help="the path of BINDING_SYNC (header-signed)",
        request_id=lambda _, body: text_of(body.get("requestId")),
        violations=lambda request: header_violations(request.head) + sync_linkage_violations(request.body),
        apply=Wallet.sync_linkage,
        result=sync_linkage_result,
    ),
    ServedApi(
        name=Api.BIND_ACCOUNT,
        protocol=EnvelopeSigned,
        path="/sandbox/account/bind",
        path_help="the path of account.bind (envelope-signed)",
        request_id=lambda head, _: text_of(head.get("reqMsgId")),
        violations=lambda request: head_violations(request.head) + bind_account_violations(request.body),
        apply=Wallet.bind_account,
        result=bind_account_result,
        function="alipay.intl.merchant.account.bind",
        function_flag="function",
    ),
)
APIS: Final[Mapping[str, ServedApi]] = {api.name: api for api in _ROWS}
