"""Send a response: complete, late, slowly, in part, or not at all."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from .answers import Answer

HANG_S: Final = 60.0
BYTE_S: Final = 1.0
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)

Sleep = Callable[[float], Awaitable[None]]
Deliver = Callable[[web.Request, Answer, Sleep], Awaitable[web.StreamResponse]]


async def whole(_request: web.Request, answer: Answer, _sleep: Sleep) -> web.StreamResponse:
    """Send the response."""
    return web.Response(status=answer.http_status, headers=answer.headers, body=answer.body)


def delayed(delay_s: float) -> Deliver:
    """Return a function that sends the response `delay_s` seconds late."""

    async def deliver(request: web.Request, answer: Answer, sleep: Sleep) -> web.StreamResponse:
        await sleep(delay_s)
        return await whole(request, answer, sleep)

    return deliver


async def hang(request: web.Request, answer: Answer, sleep: Sleep) -> web.StreamResponse:
    """Send nothing, and close after 60 s. If the client closes first, this is cancelled."""
    await sleep(HANG_S)
    return await close(request, answer, sleep)


async def close(request: web.Request, _answer: Answer, _sleep: Sleep) -> web.StreamResponse:
    """Close the connection with a TCP FIN, without sending anything."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


async def reset(request: web.Request, _answer: Answer, _sleep: Sleep) -> web.StreamResponse:
    """Reset the connection: with a linger time of 0, TCP sends RST instead of FIN."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        request.transport.abort()
    return web.Response()


async def truncated(request: web.Request, answer: Answer, sleep: Sleep) -> web.StreamResponse:
    """Announce the whole body, send half of it, and close."""
    response = await _started(request, answer)
    await response.write(answer.body[: len(answer.body) // 2])
    await close(request, answer, sleep)
    return response


async def slowly(request: web.Request, answer: Answer, sleep: Sleep) -> web.StreamResponse:
    """Send the headers, then one byte a second."""
    response = await _started(request, answer)
    for at in range(len(answer.body)):
        await sleep(BYTE_S)
        await response.write(answer.body[at : at + 1])
    return response


async def _started(request: web.Request, answer: Answer) -> web.StreamResponse:
    """Send the headers, with the length of the whole body."""
    response = web.StreamResponse(status=answer.http_status, headers=answer.headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    return response
