"""The calls that the demo makes, and the expected result of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from alipayhk.linkage.v1 import linkage_service_pb2 as pb

PLAIN: Final = "127.0.0.1:50051"
ENCRYPTED: Final = "127.0.0.1:50052"


@dataclass(frozen=True, slots=True)
class Example:
    """One call, and its expected result."""

    title: str
    address: str
    method: str
    request: Callable[[int], Message]
    """Make the request from a number that is new in each run."""
    expected: str


def _change(number: int, what: str, operate_type: pb.OperateType, member: str) -> pb.SyncLinkageRequest:
    request = pb.SyncLinkageRequest(
        request_id=f"demo-{what}-{number}",
        operate_type=operate_type,
        external_identity_type=pb.EXTERNAL_IDENTITY_TYPE_UID,
        external_identity_value=member,
        user_id="2160000000000001",
        binding_target_type=pb.BINDING_TARGET_TYPE_USER_ID,
    )
    request.biz_time.FromMilliseconds(number)
    return request


def _account(number: int) -> pb.BindAccountRequest:
    request = pb.BindAccountRequest(
        request_id=f"demo-account-{number}",
        merchant_account_id="2160400000002012",
        type="TELECOM",
        sub_type="MOBILE_SERVICE",
        account_id="88781108",
        user_id="2160000000000001",
    )
    request.timestamp.FromMilliseconds(number)
    return request


EXAMPLES: Final = (
    Example(
        "A membership is bound, in plain",
        PLAIN,
        "SyncLinkage",
        lambda number: _change(number, "bind", pb.OPERATE_TYPE_BIND, "member-0001"),
        expected="OK",
    ),
    Example(
        "Another one is bound, encrypted",
        ENCRYPTED,
        "SyncLinkage",
        lambda number: _change(number, "encrypted", pb.OPERATE_TYPE_BIND, "member-0002"),
        expected="OK",
    ),
    Example("A bill account is bound", PLAIN, "BindAccount", _account, expected="OK"),
    Example(
        "AlipayHK refuses to unbind what was never bound",
        PLAIN,
        "SyncLinkage",
        lambda number: _change(number, "unbind", pb.OPERATE_TYPE_UNBIND, f"stranger-{number}"),
        expected="FAILED_PRECONDITION WALLET_REJECTED",
    ),
)
