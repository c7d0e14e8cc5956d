"""The APIs that the sandbox plays: one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from clients.alipayhk.diagnosis import DIAGNOSES
from clients.alipayhk.diagnosis.mistakes import Diagnosis
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
class Api:
    """One API."""

    name: str
    """The name of the RPC that calls it."""
    protocol: type[WireProtocol]
    path_flag: str
    """The command line flag for its path."""
    request_id: Callable[[Members, Members], str]
    """Return the request id, given the head and the body."""
    violations: Callable[[VerifiedRequest], list[str]]
    apply: Callable[[Wallet, str, Members], Outcome]
    result: Callable[[Result], dict[str, object]]
    """Return a result with the member names of this API."""

    @property
    def diagnosis(self) -> Diagnosis:
        """The diagnosis of the API's protocol."""
        return DIAGNOSES[self.protocol]


def magic_id(body: Members) -> tuple[str, str]:
    """Return name and value of the member that can name a fault: userId, or openId if it is absent."""
    name = "userId" if body.get("userId") else "openId"
    return name, text_of(body.get(name))


APIS: Final[dict[str, Api]] = {
    "SyncLinkage": Api(
        name="SyncLinkage",
        protocol=HeaderSigned,
        path_flag="sync-linkage-path",
        request_id=lambda _, body: text_of(body.get("requestId")),
        violations=lambda request: header_violations(request.head) + sync_linkage_violations(request.body),
        apply=Wallet.sync_linkage,
        result=sync_linkage_result,
    ),
    "BindAccount": Api(
        name="BindAccount",
        protocol=EnvelopeSigned,
        path_flag="bind-account-path",
        request_id=lambda head, _: text_of(head.get("reqMsgId")),
        violations=lambda request: head_violations(request.head) + bind_account_violations(request.body),
        apply=Wallet.bind_account,
        result=bind_account_result,
    ),
}
