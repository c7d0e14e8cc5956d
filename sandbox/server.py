"""The listener: pass requests to the exchange, and send its responses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from clients.alipayhk.wire.clock import Now, now_utc
from clients.alipayhk.wire.messages import RawRequest

from .console import Console
from .delivery import Sleep
from .exchange import REQUEST_BYTES_MAX, Exchange
from .options import Options

SHUTDOWN_S: Final = 0.5
"""How long responses in progress may take after a stop, in seconds; one with HANG would take a minute."""
_log: Final = logging.getLogger("sandbox")


@asynccontextmanager
async def running(
    options: Options, *, now: Now = now_utc, sleep: Sleep = asyncio.sleep
) -> AsyncIterator[str]:
    """Listen while the context is open; yield the base URL."""
    exchange = Exchange(options.endpoints, now=now)
    runner = web.AppRunner(
        application(exchange, sleep, options.host),
        access_log=None,
        # If the client disconnects, cancel a hanging or slow response.
        handler_cancellation=True,
        # The signature covers the bytes on the wire, so do not decompress them.
        auto_decompress=False,
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port, ssl_context=options.tls)
        await site.start()
        yield options.url(port=runner.addresses[0][1])
    finally:
        await runner.cleanup()


def application(exchange: Exchange, sleep: Sleep, host: str) -> web.Application:
    """Return the application: the console handles its own paths, the exchange all others."""

    async def serve(request: web.Request) -> web.StreamResponse:
        exchanged = exchange.answer(request.method, await _raw(request))
        _log.info("%s", exchanged.entry.log_text())
        return await exchanged.deliver(request, exchanged.answer, sleep)

    app = web.Application(client_max_size=REQUEST_BYTES_MAX)
    app.add_routes([*Console(exchange, host).routes(), web.route("*", "/{path:.*}", serve)])
    return app


async def _raw(request: web.Request) -> RawRequest:
    """Return the request byte for byte; the body is read up to one byte more than the limit."""
    body = bytearray()
    while len(body) <= REQUEST_BYTES_MAX and (chunk := await request.content.readany()):
        body += chunk
    headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers)
    return RawRequest(path=request.raw_path, headers=tuple(headers), body=bytes(body))
