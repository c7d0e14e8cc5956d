"""LinkageService: one row per RPC, and the path of a call through them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import grpc
from google.protobuf.message import Message

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.strict_json import write_json

from ..delivery.delivery import Delivery
from ..delivery.outbound_request import OutboundRequest
from ..outcomes.call import CURRENT
from ..outcomes.refusal import Refusal
from .methods import Handler
from .rpcs import Rpc, bind_account, sync_linkage
from .validation import violations

REQUEST_ID: Final = "requestId"
"""The first member of a body that has it, and the only one that is not content.

Two ids can have the same content.
"""
_REQUEST_ID_NAME: Final = f'{{"{REQUEST_ID}":'.encode()

RPCS: Final[Mapping[str, Rpc]] = {rpc.path: rpc for rpc in (sync_linkage.RPC, bind_account.RPC)}


@dataclass(frozen=True, slots=True)
class LinkageService:
    """Serves every RPC of LinkageService."""

    endpoints: Mapping[str, Endpoint]
    """The endpoint that each RPC calls, by the RPC's name."""
    delivery: Delivery

    async def unary(self, rpc: Rpc, request: Message, _: object = None) -> Message:
        """Serve one call; raise Refusal or CallError, which `outcomes` translates."""
        if found := violations(rpc.rules, request):
            raise Refusal(reasons.ERROR_REASON_INVALID_REQUEST, found)
        command = rpc.command(request)
        members = rpc.body(command)
        request_id = members.pop(REQUEST_ID, None)
        body = content = write_json(members)
        if request_id is not None:
            body = _REQUEST_ID_NAME + write_json(request_id) + b"," + content[1:]
        outbound = OutboundRequest(
            endpoint=self.endpoints[rpc.name],
            request_id=command.request_id,
            body=body,
            content=content,
            response=rpc.response,
            reply=rpc.reply,
            linkage=rpc.linkage(command),
            biz_time_ms=rpc.biz_time_ms(command),
        )
        return await self.delivery.deliver(outbound, CURRENT.get())

    def handlers(self) -> dict[str, Handler]:
        """Return the handler of each RPC."""
        return {
            path: grpc.unary_unary_rpc_method_handler(
                partial(self.unary, rpc),
                request_deserializer=rpc.request.FromString,
                response_serializer=rpc.response.SerializeToString,
            )
            for path, rpc in RPCS.items()
        }
