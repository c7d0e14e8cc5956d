"""The operators' listener limits connections and their time, and reports why it cannot listen."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from grpc_health.v1.health import aio as health_aio

from service.config.values import Address
from service.delivery.clock_skew import ClockSkew
from service.server import admin
from service.server.server import CannotListen, Health
from service.telemetry.metrics import Metrics
from tests.ports import free_port

WAIT_S = 10.0
HALF = b"GET /livez HTTP/1.1\r\nHost: x\r\nX: "
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def listening(metrics: Metrics | None = None) -> AsyncIterator[int]:
    """Run the listener; return its port."""
    port = free_port()
    runner = await start("127.0.0.1", port, metrics)
    yield port
    await runner.cleanup()


async def start(host: str, port: int, metrics: Metrics | None = None) -> web.ServerRunner:
    health = Health(health_aio.HealthServicer(), ready=True)
    return await admin.start_admin(
        Address(host, port), metrics or Metrics(), health, ClockSkew(Metrics()), shared=False
    )


async def connected(port: int, data: bytes) -> Connection:
    """Open a connection and send the data."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return reader, writer


async def rest(connection: Connection) -> bytes:
    """Return the rest of the data, until the other side closes the connection."""
    reader, writer = connection
    try:
        return await asyncio.wait_for(reader.read(), WAIT_S)
    except ConnectionError:
        return b""
    finally:
        await close(writer)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def status_line(port: int, line: str) -> bytes:
    """Send a request, and return the status line of its response."""
    response = await rest(await connected(port, f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))
    return response.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /livez", b"200 OK"),
        ("GET /readyz?verbose=1", b"200 OK"),
        ("HEAD /metrics", b"200 OK"),
        ("GET /", b"404 Not Found"),
        ("GET /livez/", b"404 Not Found"),
        ("POST /livez", b"405 Method Not Allowed"),
    ],
)
async def test_a_connection_is_closed_after_its_response(line: str, status: bytes) -> None:
    async with listening() as port:
        assert await status_line(port, line) == b"HTTP/1.1 " + status


@pytest.mark.parametrize(
    "data", [b"", HALF, b"POST /livez HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"], ids=["", "head", "body"]
)
async def test_an_incomplete_request_is_closed_after_a_timeout(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(admin, "CONNECTION_S", 0.3, raising=False)
    async with listening() as port:
        await rest(await connected(port, data))


class CountedMetrics(Metrics):
    """Counts its renderings and the concurrent ones; each waits until a test sets `finish`."""

    def __init__(self) -> None:
        super().__init__()
        self.renderings = self.concurrent = self.concurrent_max = 0
        self.started = threading.Event()
        self.finish = threading.Event()

    def exposed(self, *, shared: bool) -> bytes:
        """Render after `finish` is set."""
        self.renderings += 1
        self.concurrent += 1
        self.concurrent_max = max(self.concurrent_max, self.concurrent)
        self.started.set()
        self.finish.wait(WAIT_S)
        self.concurrent -= 1
        return super().exposed(shared=shared)


async def test_scrapers_share_one_rendering_that_does_not_block_the_event_loop() -> None:
    metrics = CountedMetrics()
    async with listening(metrics) as port:
        first = asyncio.create_task(status_line(port, "GET /metrics"))
        assert await asyncio.to_thread(metrics.started.wait, WAIT_S)
        others = [asyncio.create_task(status_line(port, "GET /metrics")) for _ in range(20)]
        assert await status_line(port, "GET /livez") == b"HTTP/1.1 200 OK"
        metrics.finish.set()
        assert set(await asyncio.gather(first, *others)) == {b"HTTP/1.1 200 OK"}
    # On a busy machine some of the others can arrive after the second rendering has started.
    assert 2 <= metrics.renderings < 10
    assert metrics.concurrent_max == 1


async def test_renderings_have_a_minimum_interval() -> None:
    metrics = CountedMetrics()
    metrics.finish.set()
    async with listening(metrics) as port:
        started = time.monotonic()
        for _ in range(5):
            await status_line(port, "GET /metrics")
        assert time.monotonic() - started >= 4 * admin.RENDER_EVERY_S
        assert metrics.renderings == 5


async def test_a_scrape_contains_everything_counted_before_it() -> None:
    metrics = Metrics()
    async with listening(metrics) as port:
        for count in range(1, 4):
            metrics.outcomes.labels("SyncLinkage", "OK", "").inc()
            response = await rest(await connected(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))
            assert f'alipayhk_outcomes_total{{api="SyncLinkage",outcome="",reason="OK"}} {count}.0' in (
                response.decode()
            )


async def test_a_disconnected_scraper_does_not_cancel_the_rendering_of_others() -> None:
    metrics = CountedMetrics()
    async with listening(metrics) as port:
        _, disconnected = await connected(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.to_thread(metrics.started.wait, WAIT_S)
        other = asyncio.create_task(status_line(port, "GET /metrics"))
        disconnected.transport.abort()
        metrics.finish.set()
        assert await other == b"HTTP/1.1 200 OK"


async def test_idle_connections_do_not_block_other_clients() -> None:
    async with listening() as port:
        held = [await connected(port, HALF) for _ in range(300)]
        assert await status_line(port, "GET /livez") == b"HTTP/1.1 200 OK"
        for connection in held[:200]:
            assert await rest(connection) == b""
        last_reader, last_writer = held[-1]
        last_writer.write(b"\r\n\r\n")
        assert await asyncio.wait_for(last_reader.readline(), WAIT_S) == b"HTTP/1.1 200 OK\r\n"
        for _, writer in held:
            await close(writer)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("a..b", "this is not a host name"),
        ("x" * 64, "this is not a host name"),
        ("192.0.2.1", "this is not an address of this machine"),
        ("nohost.invalid", r"the host name cannot be resolved \(.+\)"),
        ("127.0.0.1", "another program uses the port"),
    ],
)
async def test_an_unusable_address_is_reported_with_the_reason(host: str, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            CannotListen, match=rf"^cannot listen on {host}:{port} \(ADMIN_LISTEN\): {reason}$"
        ):
            await start(host, port)
