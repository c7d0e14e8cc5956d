"""Read the message of each unary call here, because grpc.aio never answers a call without a message.

grpc.aio reads the single message of a unary call itself. If the stream closes without a message (END_STREAM
on HEADERS), grpc.aio never sends a status; if the stream stays open without a message, grpc.aio waits as
long as the connection is open. So each unary call is registered as one that streams its request. This
module then waits a limited time for the message, and passes `Undecodable` on instead of a missing one, so
that the caller gets INVALID_ARGUMENT.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from ..outcomes.call import Undecodable
from ..waiting import wait_for_end

MESSAGE_S: Final = 10.0
"""Maximum wait for the message of a call with a later deadline."""
CANCEL_S: Final = 0.05
"""Delay after which gRPC has cancelled a call whose message it rejected itself, such as a too large one."""

# gRPC's stubs do not type contexts and handlers.
Context = Any
Handler = Any


class FirstMessage(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """Waits for the message of each call with exactly one, then calls the handler with it."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[Handler, Handler]] = {}
        """The last handler of each registered method, and the one that replaced it."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Replace a handler of single requests by one of streamed requests."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        last = self._last.get(handler_call_details.method)
        if last is None or last[0] is not handler:
            last = self._last[handler_call_details.method] = handler, _streamed(handler)
        return last[1]


def _streamed(handler: Handler) -> Handler:
    codec = (handler.request_deserializer, handler.response_serializer)
    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(_many(handler.unary_stream), *codec)
    return grpc.stream_unary_rpc_method_handler(_one(handler.unary_unary), *codec)


def _one(inner: Callable[..., Awaitable[object]]) -> Callable[..., object]:
    async def behaviour(_: object, context: Context) -> object:
        return await inner(await _first_message(context), context)

    return behaviour


def _many(inner: Callable[..., Any]) -> Callable[..., object]:
    async def yields(_: object, context: Context) -> AsyncIterator[object]:
        async for response in inner(await _first_message(context), context):
            yield response

    async def writes(_: object, context: Context) -> None:
        await inner(await _first_message(context), context)

    return yields if inspect.isasyncgenfunction(inner) else writes


async def _first_message(context: Context) -> object:
    # gRPC leaks memory if a read is cancelled (docs/upstream-bugs.md). It completes when the call ends.
    reading = asyncio.get_running_loop().create_task(context.read())
    reading.add_done_callback(_retrieve)
    await wait_for_end(reading, MESSAGE_S)
    if not reading.done():
        return Undecodable()
    if (message := reading.result()) is not grpc.aio.EOF:
        return message
    # If gRPC itself closed the call, it cancels this task now, and the caller already has a status.
    await asyncio.sleep(CANCEL_S)
    return Undecodable()


def _retrieve(reading: asyncio.Future[object]) -> None:
    """Keep asyncio from logging the exception of a read whose call is over."""
    if not reading.cancelled():
        reading.exception()
