"""The operators' listener: few connections, none for long, and a reason where it cannot listen."""

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


async def sent(port: int, data: bytes) -> Connection:
    """Open a connection and send this."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return reader, writer


async def rest(connection: Connection) -> bytes:
    """Read until the other side closes."""
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


async def asked(port: int, line: str) -> bytes:
    """Ask, and return the status line."""
    answer = await rest(await sent(port, f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))
    return answer.partition(b"\r\n")[0]


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
async def test_a_connection_is_closed_after_its_answer(line: str, status: bytes) -> None:
    async with listening() as port:
        assert await asked(port, line) == b"HTTP/1.1 " + status


@pytest.mark.parametrize(
    "data", [b"", HALF, b"POST /livez HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"], ids=["", "head", "body"]
)
async def test_a_request_that_is_never_whole_has_so_much_time(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(admin, "CONNECTION_S", 0.3, raising=False)
    async with listening() as port:
        await rest(await sent(port, data))


class CountedMetrics(Metrics):
    """Counts its renderings, which take a while, and how many there are at once."""

    def __init__(self) -> None:
        super().__init__()
        self.renderings = self.at_once = self.at_once_max = 0
        self.began = threading.Event()
        self.may_end = threading.Event()

    def exposed(self, *, shared: bool) -> bytes:
        """Render when a test lets it."""
        self.renderings += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        self.began.set()
        self.may_end.wait(WAIT_S)
        self.at_once -= 1
        return super().exposed(shared=shared)


async def test_scrapers_share_one_rendering_at_a_time_and_the_event_loop_goes_on() -> None:
    metrics = CountedMetrics()
    async with listening(metrics) as port:
        first = asyncio.create_task(asked(port, "GET /metrics"))
        assert await asyncio.to_thread(metrics.began.wait, WAIT_S)
        others = [asyncio.create_task(asked(port, "GET /metrics")) for _ in range(20)]
        assert await asked(port, "GET /livez") == b"HTTP/1.1 200 OK"
        metrics.may_end.set()
        assert set(await asyncio.gather(first, *others)) == {b"HTTP/1.1 200 OK"}
    # On a busy machine some of the others may come after the second rendering has begun.
    assert 2 <= metrics.renderings < 10
    assert metrics.at_once_max == 1


async def test_renderings_are_a_while_apart() -> None:
    metrics = CountedMetrics()
    metrics.may_end.set()
    async with listening(metrics) as port:
        began = time.monotonic()
        for _ in range(5):
            await asked(port, "GET /metrics")
        assert time.monotonic() - began >= 4 * admin.RENDER_EVERY_S
        assert metrics.renderings == 5


async def test_a_scrape_shows_what_was_counted_before_it_was_asked_for() -> None:
    metrics = Metrics()
    async with listening(metrics) as port:
        for count in range(1, 4):
            metrics.outcomes.labels("SyncLinkage", "OK", "").inc()
            answer = await rest(await sent(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))
            assert f'alipayhk_outcomes_total{{api="SyncLinkage",outcome="",reason="OK"}} {count}.0' in (
                answer.decode()
            )


async def test_a_scraper_that_goes_away_takes_the_rendering_from_nobody() -> None:
    metrics = CountedMetrics()
    async with listening(metrics) as port:
        _, gone = await sent(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.to_thread(metrics.began.wait, WAIT_S)
        stays = asyncio.create_task(asked(port, "GET /metrics"))
        gone.transport.abort()
        metrics.may_end.set()
        assert await stays == b"HTTP/1.1 200 OK"


async def test_those_that_only_hold_connections_do_not_keep_others_out() -> None:
    async with listening() as port:
        held = [await sent(port, HALF) for _ in range(300)]
        assert await asked(port, "GET /livez") == b"HTTP/1.1 200 OK"
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
        ("192.0.2.1", "Cannot assign requested address"),
        ("nohost.invalid", "(?!None).*(?<!in use)"),
        ("127.0.0.1", "Address already in use"),
    ],
)
async def test_an_address_that_cannot_be_listened_on_is_told_with_the_reason(
    host: str, reason: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            CannotListen, match=rf"^cannot listen on {host}:{port} \(ADMIN_LISTEN\): {reason}$"
        ):
            await start(host, port)
