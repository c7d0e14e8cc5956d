"""The listener: HTTP in, HTTP out, and nothing decided in between."""

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
"""How long answers under way may take once it stops; a hanging one never ends by itself."""
_log: Final = logging.getLogger("sandbox")


@asynccontextmanager
async def running(
    options: Options,
    *,
    now: Now = now_utc,
    sleep: Sleep = asyncio.sleep,
) -> AsyncIterator[str]:
    """Listen for as long as the context lasts; yield the base URL."""
    exchange = Exchange(options.endpoints, now=now)
    runner = web.AppRunner(
        application(exchange, sleep),
        access_log=None,
        # A client that goes away ends a hanging or slow answer.
        handler_cancellation=True,
        # The signature covers the bytes on the wire.
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


def application(exchange: Exchange, sleep: Sleep) -> web.Application:
    """Route the console's paths to the console, and every other to the exchange."""

    async def serve(request: web.Request) -> web.StreamResponse:
        exchanged = exchange.answer(request.method, await _raw(request))
        _log.info("%s", exchanged.entry.log_text())
        return await exchanged.deliver(request, exchanged.answer, sleep)

    app = web.Application(client_max_size=REQUEST_BYTES_MAX)
    app.add_routes([*Console(exchange).routes(), web.route("*", "/{path:.*}", serve)])
    return app


async def _raw(request: web.Request) -> RawRequest:
    """Read a request byte for byte, its body to one byte past the limit."""
    body = bytearray()
    while len(body) <= REQUEST_BYTES_MAX and (chunk := await request.content.readany()):
        body += chunk
    headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers)
    return RawRequest(path=request.raw_path, headers=tuple(headers), body=bytes(body))
