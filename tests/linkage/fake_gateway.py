"""A gRPC server in the place of the gateway, which records its calls."""

from __future__ import annotations

from typing import Any

import grpc

from alipayhk.linkage.v1 import linkage_service_pb2_grpc
from alipayhk_linkage import BindAccountResponse, SyncLinkageResponse


class Gateway(linkage_service_pb2_grpc.LinkageServiceServicer):
    """Records the metadata of calls, and fails them with the given codes and pushbacks."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, Any]] = []
        self.time_left_s: list[float] = []
        self.pushbacks: list[str | None] = []
        self.codes: list[grpc.StatusCode] = []

    async def SyncLinkage(self, request: Any, context: Any) -> SyncLinkageResponse:  # noqa: N802
        await self.called(context)
        return SyncLinkageResponse()

    async def BindAccount(self, request: Any, context: Any) -> BindAccountResponse:  # noqa: N802
        await self.called(context)
        return BindAccountResponse()

    async def called(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        self.time_left_s.append(context.time_remaining())
        if self.codes:
            pushback = self.pushbacks.pop(0)
            trailers = () if pushback is None else (("grpc-retry-pushback-ms", pushback),)
            await context.abort(self.codes.pop(0), "a test failure", trailers)
