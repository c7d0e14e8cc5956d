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
"""Time limit of a connection in seconds; a connection serves one request."""
RENDER_EVERY_S: Final = 0.25
"""Minimum time between two renderings of the metrics, in seconds."""
_STOP_S: Final = 1.0


async def start_admin(
    address: Address, metrics: Metrics, health: Health, skew: ClockSkew, *, shared: bool
) -> web.ServerRunner:
    """Start the listener, on a shared port if `shared`. The caller must clean up the runner."""
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
    """Renders a page in a thread: one rendering for all waiting requests, at most one in RENDER_EVERY_S.

    The rendering for a request starts after the request has arrived, so the page includes every event
    before the request.
    """

    def __init__(self, render: Callable[[], bytes]) -> None:
        self._render = render
        self._one_at_a_time = asyncio.Lock()
        self._waited_for: asyncio.Task[bytes] | None = None
        self._next_start_s = 0.0

    async def next(self) -> bytes:
        """Wait for the next rendering; a cancelled caller does not cancel it for the others."""
        if self._waited_for is None:
            self._waited_for = asyncio.create_task(self._rendered())
        return await asyncio.shield(self._waited_for)

    async def _rendered(self) -> bytes:
        async with self._one_at_a_time:
            await asyncio.sleep(self._next_start_s - time.monotonic())
            self._waited_for = None
            try:
                return await asyncio.to_thread(self._render)
            finally:
                self._next_start_s = time.monotonic() + RENDER_EVERY_S


class _Listener(web.Server):
    """Serves pages; limits the number of connections, and the duration of each."""

    def __init__(self, pages: Mapping[str, Callable[[], Awaitable[web.Response]]]) -> None:
        super().__init__(self._answer, access_log=None)
        self._pages = pages

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Limit the duration of the connection, and close the oldest ones beyond OPERATORS_MAX."""
        super().connection_made(handler, transport)
        asyncio.get_running_loop().call_later(CONNECTION_S, transport.abort)
        # A normal request takes milliseconds, so the oldest connections are those that hold on.
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
