"""A version of grpcio that one packet can stop: `make canary` runs this with the newest version."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from service.commands.exit_codes import EX_SOFTWARE
from tests.e2e.conftest import Run
from tests.e2e.gateway import WAIT_MAX_S, channel_to
from tests.e2e.http2 import HOSTILE
from tests.e2e.operations import SERVING, health
from tests.e2e.test_hostile_http2 import PATH, send
from tests.ports import free_port

pytestmark = pytest.mark.canary


async def packet_stops_a_server() -> bool:
    """Return whether the packet stops a plain server of the installed grpcio."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await send(f"127.0.0.1:{port}", HOSTILE[PATH])
    try:
        return not await server.wait_for_termination(1)
    except UnicodeDecodeError:
        return True
    finally:
        await server.stop(None)


async def test_each_worker_stopped_by_a_packet_is_replaced(run: Run) -> None:
    if not await packet_stops_a_server():
        pytest.skip("this grpcio survives the packet")
    listens = {name: f"127.0.0.1:{free_port()}" for name in ("LISTEN", "HEALTH_LISTEN")}
    async with run({"WORKERS": "2", **listens}) as gateway:
        await gateway.wait_for_workers(2)
        for address, count in ((gateway.address, 3), (listens["HEALTH_LISTEN"], 4)):
            await send(address, HOSTILE[PATH])
            await gateway.wait_for_workers(count)
        deaths = [line["code"] for line in gateway.records if line["event"] == "worker exited"]
        assert deaths == [EX_SOFTWARE, EX_SOFTWARE]
        async with asyncio.timeout(WAIT_MAX_S), channel_to(gateway.address) as channel:
            assert await health(channel) == SERVING
