"""The operators' listener: /metrics, /livez and /readyz over plain HTTP."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from .metrics import Metrics
from .parsing import Address
from .server import CannotListen, Health


async def start_admin(address: Address, metrics: Metrics, health: Health, *, shared: bool) -> web.AppRunner:
    """Listen, where asked on a port shared by all workers; return what is to be cleaned up at the end."""

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=metrics.exposed(shared=shared), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if health.ready:
            return web.Response(text="ok\n")
        return web.Response(text="not ready\n", status=503)

    app = web.Application()
    app.add_routes(
        [web.get("/metrics", show_metrics), web.get("/livez", livez), web.get("/readyz", readyz)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address.host, address.port, reuse_port=shared).start()
    except OSError:
        await runner.cleanup()
        raise CannotListen(f"cannot listen on {address}: is it in use?") from None
    return runner
