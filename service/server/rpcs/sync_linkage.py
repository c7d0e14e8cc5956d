"""SyncLinkage: AlipayHK's "Synchronize Account Linkage Status", BINDING_SYNC."""

from __future__ import annotations

from typing import Final, NamedTuple

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from clients.alipayhk.api import Api
from clients.alipayhk.wire.messages import VerifiedResponse

from ..validation import choice, moment, request_id, required, required_moment, text, when
from . import Rpc, milliseconds
from .result import set_result

BIZ_TYPE: Final = "BINDING_SYNC"
OPERATE_TYPES: Final = {pb.OPERATE_TYPE_BIND: "BIND", pb.OPERATE_TYPE_UNBIND: "UNBIND"}
EXTERNAL_IDENTITY_TYPES: Final = {
    pb.EXTERNAL_IDENTITY_TYPE_UID: "UID",
    pb.EXTERNAL_IDENTITY_TYPE_PHONE: "PHONE",
}
BINDING_TARGET_TYPES: Final = {
    pb.BINDING_TARGET_TYPE_USER_ID: "USER_ID",
    pb.BINDING_TARGET_TYPE_CARD: "CARD",
    pb.BINDING_TARGET_TYPE_PHONE: "PHONE",
}
REQUEST_ID_MAX: Final = 128


def _has_target(request: pb.SyncLinkageRequest) -> bool:
    return request.binding_target_type in (pb.BINDING_TARGET_TYPE_CARD, pb.BINDING_TARGET_TYPE_PHONE)


RULES: Final = (
    request_id(REQUEST_ID_MAX),
    required_moment("biz_time"),
    choice("operate_type", OPERATE_TYPES),
    choice("external_identity_type", EXTERNAL_IDENTITY_TYPES),
    text("external_identity_value", 128),
    text("user_id", 64),
    choice("binding_target_type", BINDING_TARGET_TYPES),
    when(_has_target, required("binding_target")),
    text("binding_target", 128, optional=True),
    text("external_binding_id", 128, optional=True),
    moment("expiry_time"),
)


class Command(NamedTuple):
    """One change of one linkage; times are in milliseconds since 1970, absent members are empty."""

    request_id: str
    biz_time_ms: int
    operate_type: str
    external_identity_type: str
    external_identity_value: str
    user_id: str
    binding_target_type: str
    binding_target: str
    external_binding_id: str
    expiry_time_ms: int | None

    def __repr__(self) -> str:
        """Return no member: most are personal data."""
        return "Command()"


def command(request: pb.SyncLinkageRequest) -> Command:
    """Convert a request that has passed the rules."""
    return Command(
        request_id=request.request_id,
        biz_time_ms=milliseconds(request.biz_time),
        operate_type=OPERATE_TYPES[request.operate_type],
        external_identity_type=EXTERNAL_IDENTITY_TYPES[request.external_identity_type],
        external_identity_value=request.external_identity_value,
        user_id=request.user_id,
        binding_target_type=BINDING_TARGET_TYPES[request.binding_target_type],
        binding_target=request.binding_target,
        external_binding_id=request.external_binding_id,
        expiry_time_ms=milliseconds(request.expiry_time) if request.HasField("expiry_time") else None,
    )


def body(command: Command) -> dict[str, object]:
    """Convert the command to AlipayHK's names, in a fixed order and without absent members."""
    members: dict[str, object] = {
        "requestId": command.request_id,
        "bizTime": command.biz_time_ms,
        "bizType": BIZ_TYPE,
        "externalBindingId": command.external_binding_id or None,
        "operateType": command.operate_type,
        "externalIdentityType": command.external_identity_type,
        "externalIdentityValue": command.external_identity_value,
        "userId": command.user_id,
        "bindingTargetType": command.binding_target_type,
        "bindingTarget": command.binding_target or None,
        "expiryTime": command.expiry_time_ms,
    }
    return {name: value for name, value in members.items() if value is not None}


def reply(verified: VerifiedResponse) -> pb.SyncLinkageResponse:
    """Convert a verified success."""
    response = pb.SyncLinkageResponse(tracer_id=verified.tracer_id)
    set_result(response, verified)
    return response


def linkage(command: Command) -> tuple[str, ...]:
    """Return the linkage that the command changes; external_binding_id is not part of its identity."""
    return (
        command.external_identity_type,
        command.external_identity_value,
        command.user_id,
        command.binding_target_type,
        command.binding_target,
    )


RPC: Final = Rpc(
    name=Api.SYNC_LINKAGE,
    request=pb.SyncLinkageRequest,
    response=pb.SyncLinkageResponse,
    request_id_max=REQUEST_ID_MAX,
    rules=RULES,
    command=command,
    body=body,
    reply=reply,
    linkage=linkage,
    biz_time_ms=lambda command: command.biz_time_ms,
)
