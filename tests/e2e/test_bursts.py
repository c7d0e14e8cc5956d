"""Thousands of concurrent calls: the gateway itself serves or refuses each one, before gRPC's limits do."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
from grpc import StatusCode

from tests.e2e import caller
from tests.e2e.caller import Reported, not_sent
from tests.e2e.conftest import Run
from tests.e2e.gateway import WAIT_MAX_S, Gateway, channel_to
from tests.e2e.operations import metrics
from tests.e2e.samples import SYNC, fresh_request
from tests.e2e.upstream import Upstream
from tests.e2e.wallet import id_of

OVERLOADED = not_sent(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
OUTCOME = 'api="SyncLinkage",outcome="not_sent",reason="OVERLOADED"'
DEADLINE_S = 120.0
"""Long enough that no call of these tests reaches its deadline, even on a busy machine."""


async def concurrent_calls(gateway: Gateway, calls: int, connections: int) -> list[tuple[Any, Any]]:
    """Make concurrent calls over a number of connections; return each request with its result."""
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(channel_to(gateway.address)) for _ in range(connections)
        ]
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        requests = [fresh_request(SYNC) for _ in range(calls)]
        results = await asyncio.gather(
            *(
                caller.call(channels[number % connections], SYNC, request, timeout_s=DEADLINE_S)
                for number, request in enumerate(requests)
            )
        )
    return list(zip(requests, results, strict=True))


@pytest.mark.parametrize(
    ("calls", "connections"),
    [
        (2000, 20),
        pytest.param(2000, 1, marks=pytest.mark.full),
        pytest.param(6000, 1, marks=pytest.mark.full),
        pytest.param(6000, 60, marks=pytest.mark.full),
    ],
)
async def test_each_call_of_a_burst_is_served_or_refused_with_details(
    run: Run, upstream: Upstream, calls: int, connections: int
) -> None:
    async with run() as gateway:
        ended = await concurrent_calls(gateway, calls, connections)
        sent = {id_of(request) for request in upstream.requests}
        refused = [(request, result) for request, result in ended if isinstance(result, Reported)]
        for request, result in refused:
            assert result.status.details, f"{result.code.name} without details"
            caller.check(result, OVERLOADED, request)
            assert request.request_id not in sent
        assert len(sent) == calls - len(refused) > 0
        over = time.monotonic()
        while isinstance(await caller.call(gateway.channel, SYNC, fresh_request(SYNC)), Reported):
            assert time.monotonic() - over < 5.0
            await asyncio.sleep(0.1)


async def test_refused_calls_are_counted_and_logged_together(run: Run, upstream: Upstream) -> None:
    async with run() as gateway:
        ended = await concurrent_calls(gateway, 2000, 4)
        refused = sum(isinstance(result, Reported) for _, result in ended)
        assert refused, "the burst was too small for this machine"
        await gateway.logged(lambda record: record["event"] == "calls refused")
        logged = [record for record in gateway.records if record["event"] == "calls refused"]
        assert 0 < len(logged) < 200
        assert {record["reason"] for record in logged} == {"OVERLOADED"}
        counted = 0.0
        async with asyncio.timeout(WAIT_MAX_S):
            while counted < refused:  # a call is counted after its status was sent
                await asyncio.sleep(0.1)
                counted = (await metrics(gateway))[f"alipayhk_outcomes_total{{{OUTCOME}}}"]
        assert counted == refused
