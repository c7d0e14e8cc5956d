"""AlipayHK is down under load: the gateway makes few attempts, refuses calls quickly, and recovers."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from grpc import StatusCode

from tests.e2e.caller import Reported, check, not_sent
from tests.e2e.operations import metrics
from tests.e2e.samples import BIND, SYNC, Api, fresh_request
from tests.e2e.upstream import Upstream, listening
from tests.e2e.wallet import Wallet
from tests.ports import free_port
from tests.scenarios.conftest import RunSystem
from tests.scenarios.system import OVERLOADED, System

RATE: Final = 30.0
OUTAGE_S: Final = 3.0
CLOSES_WITHIN_S: Final = 7.0
OPENS_WITHIN_S: Final = 20.0
CIRCUIT_OPEN: Final = not_sent(StatusCode.UNAVAILABLE, "CIRCUIT_OPEN")
UNREACHABLE: Final = not_sent(StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
EXPECTED: Final = {expected.reason: expected for expected in (CIRCUIT_OPEN, UNREACHABLE, OVERLOADED)}
TOO_LATE: Final = "DEADLINE_EXCEEDED"
"""The code of a call whose own deadline expired first, which has no details."""


@asynccontextmanager
async def alipayhk_up(port: int, wallet: Wallet) -> AsyncIterator[Upstream]:
    """Run AlipayHK on this port during the block."""
    async with listening(bound=socket.create_server(("127.0.0.1", port))) as upstream:
        upstream.script = wallet.says()
        yield upstream


async def attempts_of(system: System) -> float:
    """Return the number of attempts so far."""
    return sum(
        value
        for name, value in (await metrics(system.gateway)).items()
        if name.startswith("alipayhk_upstream_attempts_total")
    )


async def load(system: System) -> tuple[Counter[str], float]:
    """Make calls at RATE for OUTAGE_S, and until enough are refused; return reasons and seconds."""
    number, began, reasons = 0, time.monotonic(), Counter[str]()

    async def call() -> None:
        result = await system.call(SYNC, fresh_request(SYNC), timeout_s=2.0)
        reasons[checked(result)] += 1

    async with asyncio.timeout(OPENS_WITHIN_S), asyncio.TaskGroup() as calls:
        while number < RATE * OUTAGE_S or reasons[CIRCUIT_OPEN.reason] <= RATE:
            await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
            calls.create_task(call())
            number += 1
    return reasons, time.monotonic() - began


async def test_breaker_limits_attempts_during_an_outage_and_closes_after_it(
    run_system: RunSystem, wallet: Wallet
) -> None:
    port = free_port()
    known = [(SYNC, fresh_request(SYNC)), (BIND, BIND.request())]
    async with run_system({"BASE_URL": f"http://127.0.0.1:{port}"}) as system:
        async with alipayhk_up(port, wallet):
            for api, request in known:
                await system.ok(api, request)
        before = await attempts_of(system)
        reasons, took_s = await load(system)
        # A busy machine adds these: calls wait in gRPC's queue, or their status misses their deadline.
        assert reasons[OVERLOADED.reason] + reasons[TOO_LATE] < reasons.total() / 10, reasons
        accepted = reasons[UNREACHABLE.reason] + reasons[TOO_LATE]
        attempts = await attempts_of(system) - before
        assert attempts <= 1.2 * accepted + 10 * took_s
        for api, request in known:
            await system.ok(api, request, replayed=True)
        async with alipayhk_up(port, wallet) as back:
            await check_recovers(system)
            assert len(back.requests) >= 1


def checked(result: Any) -> str:
    """Check that a call reports that nothing was sent, or met its own deadline; return the reason."""
    assert isinstance(result, Reported)
    if not result.status.details:
        assert result.code.name == TOO_LATE, result
        return TOO_LATE
    reason: str = result.info.reason
    check(result, EXPECTED[reason])
    return reason


async def check_recovers(system: System) -> None:
    """Call until a call succeeds within CLOSES_WITHIN_S; check that later calls succeed too."""
    began = time.monotonic()
    request = fresh_request(SYNC)
    while isinstance(result := await system.served(SYNC, request), Reported):
        check(result, CIRCUIT_OPEN, request)
        assert time.monotonic() - began < CLOSES_WITHIN_S
        await asyncio.sleep(0.1)
    for _ in range(3):
        await system.ok(SYNC, fresh_request(SYNC))


async def open_the_breaker(system: System, api: Api) -> None:
    """Call until the breaker is open; on a busy machine few calls get as far as a failed attempt."""
    for _ in range(20):
        calls = (system.call(api, fresh_request(api), timeout_s=1.5) for _ in range(25))
        if CIRCUIT_OPEN.reason in map(checked, await asyncio.gather(*calls)):
            return
    raise AssertionError("the breaker stays closed")


async def test_outage_of_one_api_does_not_affect_the_other(
    run_system: RunSystem, upstream: Upstream
) -> None:
    async with run_system({"BIND_ACCOUNT_BASE_URL": f"http://127.0.0.1:{free_port()}"}) as system:
        await open_the_breaker(system, BIND)
        await system.reported(BIND, BIND.request(), CIRCUIT_OPEN)
        await system.ok(SYNC, fresh_request(SYNC))
        assert len(upstream.requests) == 1
