"""Make a gRPC interceptor from async context managers that surround every call.

From the outside in they are `access_log`, `error_translation` and `authorization`. gRPC sends the text of
an uncaught exception to the caller, so `error_translation` surrounds everything that can fail. gRPC calls
an interceptor for every call; each method's handler is wrapped once, when its first call arrives.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
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
    service: str = field(init=False)
    """The service's full name."""
    name: str = field(init=False)

    def __post_init__(self) -> None:
        """Split the path."""
        service, _, name = self.path.removeprefix("/").partition("/")
        object.__setattr__(self, "service", service)
        object.__setattr__(self, "name", name)


Surround = Callable[[Method, Any, Context], AbstractAsyncContextManager[object]]
Behaviour = Callable[..., Any]
Wrap = Callable[[Surround, Method, Behaviour], Behaviour]


class Around(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """Surrounds every call of every registered method with context managers, given from the outside in."""

    def __init__(self, *surrounds: Surround) -> None:
        self._surrounds = surrounds
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the handler of a registered method; gRPC itself refuses an unregistered method."""
        path = handler_call_details.method
        wrapped = self._handlers.get(path)
        if wrapped is None and (handler := await continuation(handler_call_details)) is not None:
            # Only registered methods are kept, so that callers cannot fill the memory.
            wrapped = self._handlers[path] = self._wrapped(path, handler)
        return wrapped

    def _wrapped(self, path: str, handler: Handler) -> Handler:
        codec = (_deserializer(handler), handler.response_serializer)
        if not handler.response_streaming and not handler.request_streaming:
            one = self._all(_one, Method(path, "unary"), handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(one, *codec)
        if handler.request_streaming and handler.response_streaming:
            many = self._all(_many, Method(path, "bidi_stream"), handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(many, *codec)
        if handler.response_streaming:
            many = self._all(_many, Method(path, "server_stream"), handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(many, *codec)
        raise NotImplementedError(path)

    def _all(self, wrap: Wrap, method: Method, behaviour: Behaviour) -> Behaviour:
        for surround in reversed(self._surrounds):
            behaviour = wrap(surround, method, behaviour)
        return behaviour


def _one(surround: Surround, method: Method, inner: Behaviour) -> Behaviour:
    async def behaviour(request: object, context: Context) -> object:
        async with surround(method, request, context):
            return await inner(request, context)

    return behaviour


def _many(surround: Surround, method: Method, inner: Behaviour) -> Behaviour:
    async def yields(request: object, context: Context) -> AsyncIterator[object]:
        async with surround(method, request, context):
            async for response in inner(request, context):
                yield response

    async def writes(request: object, context: Context) -> None:
        async with surround(method, request, context):
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
