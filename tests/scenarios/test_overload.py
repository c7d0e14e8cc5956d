"""With more load than AlipayHK can serve, accepted calls finish in time and refused ones are not sent."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from tests.e2e.caller import Reported, check
from tests.e2e.samples import SYNC, fresh_request
from tests.e2e.upstream import Peer, Request
from tests.scenarios.conftest import PATIENT, RunSystem
from tests.scenarios.system import OVERLOADED, System

ANSWERS_AFTER_S: Final = 0.4
MAX_IN_FLIGHT: Final = 4
CAPACITY: Final = MAX_IN_FLIGHT / ANSWERS_AFTER_S
"""The calls per second that AlipayHK can serve with this latency."""
TIMES: Final = 3
"""The load, as a multiple of CAPACITY."""
LASTS_S: Final = 2.0
DEADLINE_S: Final = 5.0
"""Less than AlipayHK needs for all the calls."""
RECOVERS_WITHIN_S: Final = 5.0


async def call(system: System) -> tuple[Any, Any, float]:
    """Call once; return the request, its result and the duration in seconds."""
    request, began = fresh_request(SYNC), time.monotonic()
    result = await system.call(SYNC, request, timeout_s=DEADLINE_S)
    return request, result, time.monotonic() - began


async def test_overload_is_refused_and_accepted_calls_meet_their_deadline(run_system: RunSystem) -> None:
    async with run_system({**PATIENT, "MAX_IN_FLIGHT": str(MAX_IN_FLIGHT)}) as system:

        async def responds_slowly(request: Request, peer: Peer) -> None:
            await asyncio.sleep(ANSWERS_AFTER_S)
            await peer.send(system.wallet.right(request).wire())

        system.upstream.script = responds_slowly
        calls: list[asyncio.Task[tuple[Any, Any, float]]] = []
        began = time.monotonic()
        while (number := len(calls)) < TIMES * CAPACITY * LASTS_S:
            await asyncio.sleep(max(0.0, began + number / (TIMES * CAPACITY) - time.monotonic()))
            calls.append(asyncio.create_task(call(system)))
        ended = await asyncio.gather(*calls)
        served = [took_s for _, result, took_s in ended if not isinstance(result, Reported)]
        for request, result, _ in ended:
            refused = isinstance(result, Reported)
            if refused:
                check(result, OVERLOADED, request)
            assert system.sent(request) == (0 if refused else 1)
        assert max(served) < DEADLINE_S
        assert len(served) > CAPACITY * LASTS_S / 2, "too few calls were served"
        assert len(served) < len(ended), "there was no overload"
        over = time.monotonic()
        while isinstance((await call(system))[1], Reported):
            assert time.monotonic() - over < RECOVERS_WITHIN_S
