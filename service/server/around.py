"""The path of every call around the handler of its method.

In this order: `first_message`, `access_log`, `error_translation`, `authorization`, the handler. gRPC sends
the text of an uncaught exception to the caller, so `error_translation` surrounds everything that can fail.
It is one coroutine without context managers, because it runs for every call.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from ..outcomes.call import Call, Undecodable
from .access_log import AccessLog, MethodLog
from .authorization import Authorization
from .error_translation import ErrorTranslation
from .first_message import FirstMessage
from .methods import Context, Handler, Handlers, Method, undecodable

Behaviour = Callable[[Any, Context], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Around:
    """Surrounds the handlers of a server."""

    access_log: AccessLog
    error_translation: ErrorTranslation
    authorization: Authorization
    first_message: FirstMessage = field(default_factory=FirstMessage)

    def handlers(self, handlers: Handlers) -> dict[str, Handler]:
        """Return surrounded handlers; those of single requests stream them, as `first_message` requires."""
        return {path: self._surrounded(path, handler) for path, handler in handlers.items()}

    def _surrounded(self, path: str, handler: Handler) -> Handler:
        single = not handler.request_streaming
        if handler.response_streaming:
            kind = "server_stream" if single else "bidi_stream"
            inner = handler.unary_stream if single else handler.stream_stream
            make = grpc.stream_stream_rpc_method_handler
        elif single:
            kind, inner, make = "unary", handler.unary_unary, grpc.stream_unary_rpc_method_handler
        else:
            raise NotImplementedError(path)
        if inspect.isasyncgenfunction(inner):
            inner = _writing(inner)
        behaviour = self._behaviour(Method(path, kind), inner, single=single)
        return make(behaviour, _deserializer(handler), handler.response_serializer)

    def _behaviour(self, method: Method, inner: Behaviour, *, single: bool) -> Behaviour:
        log, authorize, read = self.access_log.of(method), self.authorization.check, self.first_message.read

        async def behaviour(requests: object, context: Context) -> object:
            request = await read(context) if single else requests
            began = time.monotonic()
            call = log.start(request, context, began)
            try:
                authorize(method, call, request, context)
                response = await inner(request, context)
            except BaseException as error:
                await self._fail(log, call, began, error, context)
                raise
            log.end(call, "OK", began)
            return response

        return behaviour

    async def _fail(
        self, log: MethodLog, call: Call, began: float, error: BaseException, context: Context
    ) -> None:
        """Send the status of a call that raised an exception, and log it."""
        try:
            await self.error_translation.send(call, error, context)
        except BaseException as ended:
            log.fail(call, ended, began, context)
            raise
        log.fail(call, error, began, context)


def _writing(inner: Callable[[Any, Context], Any]) -> Behaviour:
    """Make a coroutine function, which writes the responses, from one that yields them."""

    async def writes(request: object, context: Context) -> None:
        async for response in inner(request, context):
            await context.write(response)

    return writes


def _deserializer(handler: Handler) -> Callable[[bytes], object] | None:
    """Wrap a deserializer so that gRPC never handles its errors; `error_translation` handles a Refusal."""

    def deserialize(data: bytes) -> object:
        try:
            return handler.request_deserializer(data)
        except Exception:  # noqa: BLE001  (the text of the error must not reach the caller)
            if handler.request_streaming:
                raise undecodable() from None
            return Undecodable()

    return deserialize if handler.request_deserializer else None
