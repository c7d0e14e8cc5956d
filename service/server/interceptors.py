"""Make gRPC interceptors from async context managers that surround every call.

From the outside in they are `access_log`, `error_translation` and `authorization`. gRPC sends the text of
an uncaught exception to the caller, so `error_translation` surrounds everything that can fail.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

import grpc

from alipayhk.linkage.v1 import error_reason_pb2 as reasons

from ..outcomes.call import Undecodable
from ..outcomes.refusal import Refusal

UNDECODABLE: Final = "the request does not parse"

# gRPC's stubs do not type contexts and handlers.
Context = Any
Handler = Any


@dataclass(frozen=True, slots=True)
class Method:
    """A registered method."""

    path: str
    kind: str
    """The `grpc_type` of the metrics: unary, server_stream or bidi_stream."""


Surround = Callable[[Method, Any, Context], AbstractAsyncContextManager[None]]


class Around(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """Surrounds every call of every registered method with a context manager."""

    def __init__(self, surround: Surround) -> None:
        self._surround = surround

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the handler of a registered method; gRPC itself refuses an unregistered method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        path, codec = handler_call_details.method, (_deserializer(handler), handler.response_serializer)
        if not handler.response_streaming and not handler.request_streaming:
            one = self._one(Method(path, "unary"), handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(one, *codec)
        if handler.request_streaming and handler.response_streaming:
            many = self._many(Method(path, "bidi_stream"), handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(many, *codec)
        if handler.response_streaming:
            many = self._many(Method(path, "server_stream"), handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(many, *codec)
        raise NotImplementedError(path)

    def _one(self, method: Method, inner: Callable[..., Awaitable[object]]) -> Callable[..., object]:
        async def behaviour(request: object, context: Context) -> object:
            async with self._surround(method, request, context):
                return await inner(request, context)

        return behaviour

    def _many(self, method: Method, inner: Callable[..., Any]) -> Callable[..., object]:
        async def yields(request: object, context: Context) -> AsyncIterator[object]:
            async with self._surround(method, request, context):
                async for response in inner(request, context):
                    yield response

        async def writes(request: object, context: Context) -> None:
            async with self._surround(method, request, context):
                await inner(request, context)

        return yields if inspect.isasyncgenfunction(inner) else writes


def _deserializer(handler: Handler) -> Callable[[bytes], object] | None:
    """Wrap a deserializer so that gRPC never handles its errors; `error_translation` handles a Refusal."""

    def deserialize(data: bytes) -> object:
        try:
            return handler.request_deserializer(data)
        except Exception:  # noqa: BLE001  (the text of the error must not reach the caller)
            if handler.request_streaming:
                raise Refusal(reasons.ERROR_REASON_INVALID_REQUEST, cause=UNDECODABLE) from None
            return Undecodable()

    return deserialize if handler.request_deserializer else None


def service_and_name(method: Method) -> tuple[str, str]:
    """Split a method's path into the service's full name and the method's name."""
    service, _, name = method.path.removeprefix("/").partition("/")
    return service, name
