"""Read the request of a unary call here: grpc.aio never answers a call that ends without a message.

grpc.aio reads the one message of a unary call itself. If the stream ends without one (END_STREAM on
HEADERS), its handler returns and no status is ever sent; if neither a message nor the end comes, it
waits as long as the connection lasts. Registered as a call that streams its request, the same call
reaches this module first, which waits for a limited time and hands `Undecodable` on in place of the
message, so that the caller gets INVALID_ARGUMENT.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from ..outcomes.call import Undecodable

MESSAGE_S: Final = 10.0
"""How long a call waits for its message when its deadline allows more."""
CANCEL_S: Final = 0.05
"""In which gRPC cancels a call whose message it refused itself, as one that is too large."""

# gRPC's own context and handlers are only loosely typed.
Context = Any
Handler = Any


class FirstMessage(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """Waits for the message of each call that has exactly one, then calls the handler with it."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return a handler that streams its request, in place of one that does not."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
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
    try:
        async with asyncio.timeout(MESSAGE_S):
            message = await context.read()
    except TimeoutError:
        return Undecodable()
    if message is not grpc.aio.EOF:
        return message
    # If gRPC ended the call itself, this task is cancelled now, and the caller has its status already.
    await asyncio.sleep(CANCEL_S)
    return Undecodable()
