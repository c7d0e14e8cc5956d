"""One connection floods the gateway with cheap frames while another caller makes calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import pytest
from grpc import StatusCode

from tests.e2e import caller
from tests.e2e.caller import Reported, not_sent
from tests.e2e.conftest import Run
from tests.e2e.gateway import Gateway
from tests.e2e.http2 import DATA, EMPTY_MESSAGE, END_STREAM, RST_STREAM, connected, frame, request
from tests.e2e.samples import SYNC, fresh_request
from tests.e2e.upstream import Peer, Request, Upstream
from tests.e2e.wallet import Wallet

OVERLOADED: Final = not_sent(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
PATH: Final = (b":path", SYNC.path.encode())
CANCEL: Final = (8).to_bytes(4, "big")
LASTS_S: Final = 1.5
DEADLINE_S: Final = 120.0
"""Long enough that no valid call reaches its deadline, even on a busy machine."""
STREAMS: Final = 20_000
"""The largest number of streams in a flood: more than gRPC's own queue holds."""
BATCH: Final = 50
MEMORY_KIB_MAX: Final = 600 * 1024
"""The limit for the process: about 80 MiB without load, and 25 KiB for each call in gRPC's queue."""


def message(stream: int, *path: tuple[bytes, bytes]) -> bytes:
    """Return the frames of a whole call with an empty message."""
    return request(*path, stream=stream, flags=0) + frame(DATA, END_STREAM, stream, EMPTY_MESSAGE)


FLOODS: Final[dict[str, Callable[[int], bytes]]] = {
    "streams that are reset immediately": lambda stream: (
        request(PATH, stream=stream, flags=0) + frame(RST_STREAM, 0, stream, CANCEL)
    ),
    "invalid requests": lambda stream: message(stream, PATH),
    "health checks": message,
    "an unknown method": lambda stream: message(stream, (b":path", b"/a.B/C")),
    "the method GET, which gRPC drops": lambda stream: request(PATH, (b":method", b"GET"), stream=stream),
    "streams that never end": lambda stream: request(PATH, stream=stream, flags=0),
}


@asynccontextmanager
async def flooding(gateway: Gateway, write: Callable[[int], bytes]) -> AsyncIterator[None]:
    """Write streams on one connection as fast as the gateway reads them, and read its responses."""
    async with connected(gateway.address) as connection:

        async def read() -> None:
            async for _ in connection.frames():
                pass

        async def flood() -> None:
            with suppress(ConnectionError):
                for first in range(1, 2 * STREAMS, 2 * BATCH):
                    connection.send(*(write(first + 2 * number) for number in range(BATCH)))
                    await connection.writer.drain()
                    await asyncio.sleep(0)

        tasks = [asyncio.create_task(read()), asyncio.create_task(flood())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_calls_that_grpc_drops_do_not_count_as_queued(
    run: Run, upstream: Upstream, wallet: Wallet
) -> None:
    async def responds_slowly(request: Request, peer: Peer) -> None:
        await asyncio.sleep(1.5)
        await peer.send(wallet.right(request).wire())

    async with run() as gateway, connected(gateway.address) as connection:
        for stream in range(1, 200, 2):
            connection.send(request(PATH, (b":method", b"GET"), stream=stream))
        await connection.writer.drain()
        for _ in range(2):
            await caller.accepted(gateway.channel, SYNC, fresh_request(SYNC))
            await asyncio.sleep(0.5)
        upstream.script = responds_slowly
        calls = []
        for stream in range(201, 401, 50):
            connection.send(request(PATH, (b":method", b"GET"), stream=stream))
            calls.append(asyncio.create_task(caller.accepted(gateway.channel, SYNC, fresh_request(SYNC))))
            await asyncio.sleep(0.5)
        await asyncio.gather(*calls)


@pytest.mark.parametrize("write", FLOODS.values(), ids=FLOODS.keys())
async def test_flood_of_one_connection_cancels_no_call_of_another(
    run: Run, upstream: object, write: Callable[[int], bytes]
) -> None:
    async with run() as gateway, flooding(gateway, write):
        served, began = 0, time.monotonic()
        while time.monotonic() < began + LASTS_S or not served:
            calls = [fresh_request(SYNC) for _ in range(5)]
            ended = await asyncio.gather(
                *(caller.call(gateway.channel, SYNC, call, timeout_s=DEADLINE_S) for call in calls)
            )
            for call, result in zip(calls, ended, strict=True):
                if isinstance(result, Reported):
                    caller.check(result, OVERLOADED, call)
                else:
                    served += 1
            assert gateway.resident_kib() < MEMORY_KIB_MAX
