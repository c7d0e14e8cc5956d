"""The operators' listener: few connections, none for long, and a reason where it cannot listen."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from grpc_health.v1.health import aio as health_aio

from service import admin
from service.clock_skew import ClockSkew
from service.metrics import Metrics
from service.parsing import Address
from service.server import CannotListen, Health
from tests.ports import free_port

WAIT_S = 10.0
HALF = b"GET /livez HTTP/1.1\r\nHost: x\r\nX: "
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """Run the listener; return its port."""
    port = free_port()
    runner = await start("127.0.0.1", port)
    yield port
    await runner.cleanup()


async def start(host: str, port: int) -> web.ServerRunner:
    health = Health(health_aio.HealthServicer(), ready=True)
    return await admin.start_admin(
        Address(host, port), Metrics(), health, ClockSkew(Metrics()), shared=False
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
        ("a..b", "this is no host name"),
        ("x" * 64, "this is no host name"),
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
