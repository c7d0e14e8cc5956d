"""The operators' listener: /metrics, /livez and /readyz over plain HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from ..config.values import Address
from ..delivery.clock_skew import ClockSkew
from ..telemetry.metrics import Metrics
from .limits import OPERATORS_MAX
from .ports import cause_of
from .server import CannotListen, Health

CONNECTION_S: Final = 10.0
"""How long a connection may last, for its request and the answer; each is for one request."""
RENDER_EVERY_S: Final = 0.25
"""The least time between two renderings of the metrics, in seconds."""
_STOP_S: Final = 1.0


async def start_admin(
    address: Address, metrics: Metrics, health: Health, skew: ClockSkew, *, shared: bool
) -> web.ServerRunner:
    """Listen, where asked on a port shared by all workers; return what is to be cleaned up at the end."""
    rendering = Rendering(lambda: metrics.exposed(shared=shared))

    async def show_metrics() -> web.Response:
        return web.Response(body=await rendering.next(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def livez() -> web.Response:
        return web.Response(text="ok\n")

    async def readyz() -> web.Response:
        clock = f"{skew.text}\n" if skew.text else ""
        if health.ready:
            return web.Response(text=f"ok\n{clock}")
        return web.Response(text=f"not ready\n{clock}", status=503)

    pages = {"/metrics": show_metrics, "/livez": livez, "/readyz": readyz}
    runner = web.ServerRunner(_Listener(pages), shutdown_timeout=_STOP_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, address.host, address.port, reuse_port=shared).start()
    except (OSError, UnicodeError) as error:
        await runner.cleanup()
        raise CannotListen(f"cannot listen on {address} (ADMIN_LISTEN): {cause_of(error)}") from None
    return runner


class Rendering:
    """Renders a page for all who wait for it: once at a time, at most once in RENDER_EVERY_S, in a thread.

    Nobody gets a page whose rendering began before the request came, so that what a caller has just caused
    is in it.
    """

    def __init__(self, render: Callable[[], bytes]) -> None:
        self._render = render
        self._one_at_a_time = asyncio.Lock()
        self._waited_for: asyncio.Task[bytes] | None = None
        self._may_begin_at = 0.0

    async def next(self) -> bytes:
        """Wait for the next rendering; a caller that goes away leaves it to the others."""
        if self._waited_for is None:
            self._waited_for = asyncio.create_task(self._rendered())
        return await asyncio.shield(self._waited_for)

    async def _rendered(self) -> bytes:
        async with self._one_at_a_time:
            await asyncio.sleep(self._may_begin_at - time.monotonic())
            self._waited_for = None
            try:
                return await asyncio.to_thread(self._render)
            finally:
                self._may_begin_at = time.monotonic() + RENDER_EVERY_S


class _Listener(web.Server):
    """Serves pages to few connections at a time, and to none of them for long."""

    def __init__(self, pages: Mapping[str, Callable[[], Awaitable[web.Response]]]) -> None:
        super().__init__(self._answer, access_log=None)
        self._pages = pages

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Close it when its time is up, whatever it waits for then."""
        super().connection_made(handler, transport)
        asyncio.get_running_loop().call_later(CONNECTION_S, transport.abort)
        # Who asks and reads is gone within milliseconds: those that came first mean to stay.
        for oldest in self.connections[:-OPERATORS_MAX]:
            if oldest.transport is not None:
                oldest.transport.abort()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        page = self._pages.get(request.path)
        if page is None:
            response = web.Response(status=404, text="not found\n")
        elif request.method not in {"GET", "HEAD"}:
            response = web.Response(status=405, text="not allowed\n", headers={"Allow": "GET, HEAD"})
        else:
            response = await page()
        response.force_close()
        return response
