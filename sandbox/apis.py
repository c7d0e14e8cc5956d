"""The APIs of AlipayHK that the sandbox serves: one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from clients.alipayhk.api import Api
from clients.alipayhk.wire.messages import VerifiedRequest
from clients.alipayhk.wire.protocols import ENVELOPE_SIGNED, HEADER_SIGNED
from clients.alipayhk.wire.result import Result, text_of

from .results import bind_account_result, sync_linkage_result
from .validation import bind_account_violations, head_violations, sync_linkage_violations
from .wallet import Outcome, Wallet

Members = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ServedApi:
    """One API as the sandbox serves it."""

    name: Api
    protocol: str
    """A row of `clients.alipayhk.protocols.PROTOCOLS`."""
    path: str
    """The path at which it is served, unless the flag `path_flag` gives another one."""
    path_help: str
    request_id: Callable[[Members, Members], str]
    """Find the request id in head and body."""
    violations: Callable[[VerifiedRequest], list[str]]
    apply: Callable[[Wallet, str, Members], Outcome]
    result: Callable[[Result], dict[str, object]]
    """Write a result in this API's members."""

    @property
    def path_flag(self) -> str:
        """The flag of its path, without the dashes in front."""
        return f"{self.name.name.lower().replace('_', '-')}-path"


def magic_id(body: Members) -> tuple[str, str]:
    """Return name and value of the member that may name a fault: userId, or openId when it is absent."""
    name = "userId" if body.get("userId") else "openId"
    return name, text_of(body.get(name))


_ROWS: Final = (
    ServedApi(
        name=Api.SYNC_LINKAGE,
        protocol=HEADER_SIGNED,
        path="/sandbox/binding/sync",
        path_help="where BINDING_SYNC is, header-signed",
        request_id=lambda _, body: text_of(body.get("requestId")),
        violations=lambda request: sync_linkage_violations(request.body),
        apply=Wallet.sync_linkage,
        result=sync_linkage_result,
    ),
    ServedApi(
        name=Api.BIND_ACCOUNT,
        protocol=ENVELOPE_SIGNED,
        path="/sandbox/account/bind",
        path_help="where account.bind is, envelope-signed",
        request_id=lambda head, _: text_of(head.get("reqMsgId")),
        violations=lambda request: head_violations(request.head) + bind_account_violations(request.body),
        apply=Wallet.bind_account,
        result=bind_account_result,
    ),
)
APIS: Final[Mapping[str, ServedApi]] = {api.name: api for api in _ROWS}
