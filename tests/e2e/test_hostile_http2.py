"""HTTP/2 that no client sends: both listeners survive it, and no other caller loses a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from tests.e2e import caller
from tests.e2e.conftest import Run
from tests.e2e.gateway import WAIT_MAX_S, Gateway, Record, channel_to
from tests.e2e.http2 import HEADERS, HOSTILE, connected
from tests.e2e.operations import SERVING, health
from tests.e2e.samples import SYNC, fresh_request
from tests.e2e.upstream import Upstream
from tests.ports import free_port

ANSWER_S: Final = 0.1
"""How long a test waits for a response that may never arrive, in seconds."""
PACKETS: Final = 100
CALLS: Final = 10
"""How many calls must be made between the packets; more packets are sent if that takes longer."""
PATH: Final = "a path that is not UTF-8"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def probed(run: Run) -> AsyncIterator[Gateway]:
    """Return a gateway with both listeners; its log must then contain no error and only JSON."""
    async with run({"HEALTH_LISTEN": f"127.0.0.1:{free_port()}"}) as gateway:
        yield gateway
    errors = {line["event"] for line in gateway.records if line["level"] not in {"debug", "info"}}
    assert errors <= {"library log record"}
    assert gateway.err == []


async def test_request_with_a_path_that_is_not_utf_8_gets_a_status(probed: Gateway) -> None:
    async with connected(probed.address) as connection:
        connection.send(HOSTILE[PATH])
        async with asyncio.timeout(WAIT_MAX_S):
            response = await connection.ended()
    assert response is not None
    assert response.kind == HEADERS


async def send(address: str, frames: bytes) -> None:
    """Send frames on a new connection."""
    async with connected(address) as connection:
        connection.send(frames)
        try:
            async with asyncio.timeout(ANSWER_S):
                await connection.ended()
        except TimeoutError:
            pass


@pytest.mark.parametrize("frames", HOSTILE.values(), ids=HOSTILE)
async def test_listeners_survive_each_hostile_sequence(
    probed: Gateway, upstream: Upstream, frames: bytes
) -> None:
    for address in (probed.address, probed.settings["HEALTH_LISTEN"]):
        await send(address, frames)
        async with channel_to(address) as channel:
            assert await health(channel) == SERVING
    async with channel_to(probed.address) as channel:
        await caller.accepted(channel, SYNC, fresh_request(SYNC))
    await caller.accepted(probed.channel, SYNC, fresh_request(SYNC))


async def test_caller_loses_no_call_to_a_hundred_packets(probed: Gateway, upstream: Upstream) -> None:
    calls, packets, lines = 0, 0, len(gateway_lines(probed))

    async def send_packets() -> None:
        nonlocal packets
        while packets < PACKETS or calls < CALLS:
            await send(probed.address, HOSTILE[PATH])
            packets += 1

    sending = asyncio.create_task(send_packets())
    while not sending.done():
        await caller.accepted(probed.channel, SYNC, fresh_request(SYNC))
        async with channel_to(probed.address) as channel:
            await caller.accepted(channel, SYNC, fresh_request(SYNC))
        calls += 2
    await sending
    assert len(gateway_lines(probed)) - lines < packets, "packets fill the log"


def gateway_lines(gateway: Gateway) -> list[Record]:
    """Return the log lines that are not about a call or an attempt."""
    return [line for line in gateway.records if line["event"] not in {"call", "attempt"}]
