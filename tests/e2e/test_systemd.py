"""A service manager learns when the gateway accepts calls and when it stops (`Type=notify` of systemd)."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from tests.e2e.conftest import Run
from tests.e2e.gateway import WAIT_MAX_S
from tests.e2e.operations import SERVING, health
from tests.ports import free_port


@pytest.mark.parametrize(
    ("socket_name", "workers"),
    [("{directory}/notify", 1), ("@alipayhk-gateway-{process}", 2)],
    ids=["a file, one worker", "an abstract socket, two workers"],
)
async def test_service_manager_gets_ready_when_calls_are_accepted_and_stopping_at_a_signal(
    run: Run, tmp_path: Path, socket_name: str, workers: int
) -> None:
    name = socket_name.format(directory=tmp_path, process=os.getpid())
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setblocking(False)
        manager.bind(name.replace("@", "\0"))
        settings = {"WORKERS": str(workers), "LISTEN": f"127.0.0.1:{free_port()}"}
        async with run(settings, environ={"NOTIFY_SOCKET": name}) as gateway, asyncio.timeout(WAIT_MAX_S):
            assert await loop.sock_recv(manager, 100) == b"READY=1"
            assert await health(gateway.channel) == SERVING
            gateway.terminate()
            assert await loop.sock_recv(manager, 100) == b"STOPPING=1"
            assert await gateway.ended() == 0
        with pytest.raises(BlockingIOError):
            manager.recv(100)


async def test_gateway_serves_without_the_service_manager_that_started_it(run: Run) -> None:
    async with run(environ={"NOTIFY_SOCKET": "/nonexistent/notify"}) as gateway:
        record = await gateway.logged(lambda line: line["event"] == "service manager unreachable")
        assert record["cause"] == "No such file or directory"
        assert await health(gateway.channel) == SERVING
