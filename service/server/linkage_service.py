"""LinkageService: one row per RPC, and the path of a call through them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from .rpcs import SERVICE, Rpc, bind_account, sync_linkage
from .validation import violations

REQUEST_ID: Final = "requestId"
"""The only member of a body that is not content: two ids can have the same content."""

RPCS: Final[Mapping[str, Rpc]] = {rpc.path: rpc for rpc in (sync_linkage.RPC, bind_account.RPC)}


@dataclass(frozen=True, slots=True)
class LinkageService:
    """Serves every RPC of LinkageService."""

    endpoints: Mapping[str, Endpoint]
    """The endpoint that each RPC calls, by the RPC's name."""
    delivery: Delivery

    async def unary(self, rpc: Rpc, request: Message) -> Message:
        """Serve one call; raise Refusal or CallError, which `outcomes` translates."""
        if found := violations(rpc.rules, request):
            raise Refusal(reasons.ERROR_REASON_INVALID_REQUEST, found)
        command = rpc.command(request)
        members = rpc.body(command)
        body = content = write_json(members)
        if REQUEST_ID in members:
            content = write_json({name: value for name, value in members.items() if name != REQUEST_ID})
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

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handlers for a gRPC server."""
        rows = {str(rpc.name): self._row(rpc) for rpc in RPCS.values()}
        return grpc.method_handlers_generic_handler(SERVICE, rows)

    def _row(self, rpc: Rpc) -> grpc.RpcMethodHandler[Message, Message]:
        async def behaviour(request: Message, _: object) -> Message:
            return await self.unary(rpc, request)

        return grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=rpc.request.FromString,
            response_serializer=rpc.response.SerializeToString,
        )
