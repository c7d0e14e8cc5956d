"""The operators' listener: /metrics, /livez and /readyz over plain HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from .clock_skew import ClockSkew
from .metrics import Metrics
from .parsing import Address
from .ports import cause_of
from .server import CannotListen, Health

CONNECTION_S: Final = 10.0
"""How long a connection may last, for its request and the answer; each is for one request."""
CONNECTIONS_MAX: Final = 100
_STOP_S: Final = 1.0


async def start_admin(
    address: Address, metrics: Metrics, health: Health, skew: ClockSkew, *, shared: bool
) -> web.ServerRunner:
    """Listen, where asked on a port shared by all workers; return what is to be cleaned up at the end."""

    def show_metrics() -> web.Response:
        return web.Response(
            body=metrics.exposed(shared=shared), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    def livez() -> web.Response:
        return web.Response(text="ok\n")

    def readyz() -> web.Response:
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


class _Listener(web.Server):
    """Serves pages to few connections at a time, and to none of them for long."""

    def __init__(self, pages: dict[str, Callable[[], web.Response]]) -> None:
        super().__init__(self._answer, access_log=None)
        self._pages = pages

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Close it when its time is up, whatever it waits for then."""
        super().connection_made(handler, transport)
        asyncio.get_running_loop().call_later(CONNECTION_S, transport.abort)
        # Who asks and reads is gone within milliseconds: those that came first mean to stay.
        for oldest in self.connections[:-CONNECTIONS_MAX]:
            if oldest.transport is not None:
                oldest.transport.abort()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        page = self._pages.get(request.path)
        if page is None:
            response = web.Response(status=404, text="not found\n")
        elif request.method not in {"GET", "HEAD"}:
            response = web.Response(status=405, text="not allowed\n", headers={"Allow": "GET, HEAD"})
        else:
            response = page()
        response.force_close()
        return response
