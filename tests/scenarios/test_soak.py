"""Calls of every kind, most of them cancelled: the gateway's memory, descriptors and threads stay flat."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import pytest

from tests.e2e.operations import metrics
from tests.e2e.samples import APIS, fresh_request
from tests.e2e.upstream import Peer, Request, Script
from tests.e2e.wallet import Wallet, result
from tests.scenarios.conftest import RunSystem
from tests.scenarios.system import System

CALLERS: Final = 32
ROUNDS: Final = 10
CANCELLED: Final = 0.6
"""Share of the calls that their callers cancel."""
CANCELLED_AFTER_S: Final = 0.03
"""The longest time until a caller cancels: a call may not be sent yet, or have its response already."""
ANSWERS_AFTER_S: Final = 0.01
RATE: Final = 50.0
RESTS_WITHIN_S: Final = 60.0


@dataclass(frozen=True)
class Size:
    """How long a run is, and how much it may leave behind."""

    calls: int
    seconds: float
    """The calls are spread over this time."""
    memory_kib: int


MINUTES: Final = float(os.environ.get("SOAK_MINUTES", "120"))
QUICK: Final = Size(calls=2_000, seconds=0.0, memory_kib=4 * 1024)
WHOLE: Final = Size(calls=int(MINUTES * 60 * RATE), seconds=MINUTES * 60, memory_kib=12 * 1024)


@dataclass(frozen=True)
class Used:
    """What the gateway uses while no call is in flight."""

    memory_kib: int
    descriptors: int
    threads: int


def mixed(wallet: Wallet) -> Script:
    """Respond with success; sometimes with a refusal or garbage, or close the connection instead."""
    dice = random.Random(1)

    async def script(request: Request, peer: Peer) -> None:
        await asyncio.sleep(ANSWERS_AFTER_S)
        kind = dice.random()
        if kind < 0.02:
            peer.close()
        elif kind < 0.04:
            await peer.send(wallet.right(request).but(body=b"not what was signed").wire())
        else:
            await peer.send(
                wallet.right(request, result("F", "PROCESS_FAIL") if kind < 0.1 else None).wire()
            )

    return script


async def make_calls(system: System, size: Size, seed: int) -> None:
    """Make one round of calls, and wait until all have ended."""
    numbers = iter(range(size.calls // ROUNDS))
    pause_s = CALLERS * size.seconds / size.calls
    await asyncio.gather(
        *(_caller(system, numbers, pause_s, random.Random(f"{seed} {each}")) for each in range(CALLERS))
    )
    system.upstream.reset(system.upstream.script)
    system.gateway.out.clear()


async def _caller(system: System, numbers: Iterator[int], pause_s: float, dice: random.Random) -> None:
    last: tuple[Any, Any] | None = None
    for number in numbers:
        due = time.monotonic() + pause_s
        api = APIS[number % len(APIS)]
        request = fresh_request(api)
        if dice.random() < CANCELLED:
            calling = asyncio.create_task(system.call(api, request))
            await asyncio.wait({calling}, timeout=dice.uniform(0, CANCELLED_AFTER_S))
            calling.cancel()
            await asyncio.wait({calling})
        elif last and dice.random() < 0.2:
            await system.call(*last)
        elif dice.random() < 0.1:
            await system.call(api, fresh_request(api, user_id=""))
        else:
            await system.call(api, request)
            last = api, request
        await asyncio.sleep(due - time.monotonic())


async def resting(system: System) -> Used:
    """Wait until no attempt is in flight; return what the gateway uses."""
    async with asyncio.timeout(RESTS_WITHIN_S):
        while await in_flight(system):  # noqa: ASYNC110  (the gateway does not say when it rests)
            await asyncio.sleep(0.1)
    process = Path(f"/proc/{system.gateway.process.pid}")
    descriptors, threads = (len(list((process / kind).iterdir())) for kind in ("fd", "task"))
    return Used(system.gateway.resident_kib(), descriptors, threads)


async def in_flight(system: System) -> float:
    """Return the number of attempts in flight."""
    samples = await metrics(system.gateway)
    return sum(value for name, value in samples.items() if name.startswith("alipayhk_upstream_in_flight"))


@pytest.mark.parametrize(
    "size", [QUICK, pytest.param(WHOLE, marks=pytest.mark.full)], ids=["quick", "whole"]
)
async def test_cancelled_calls_leave_nothing_behind(run_system: RunSystem, size: Size) -> None:
    async with run_system({"UPSTREAM_TIMEOUT_S": "4", "BIND_ACCOUNT_IDEMPOTENT": "true"}) as system:
        system.upstream.script = mixed(system.wallet)
        used = []
        for number in range(ROUNDS):
            await make_calls(system, size, number)
            used.append(await resting(system))
        warm, at_end = used[2:5], used[-3:]
        grown_kib = median(each.memory_kib for each in at_end) - median(each.memory_kib for each in warm)
        assert grown_kib < size.memory_kib, used
        # Each concurrent call can have its own connection to AlipayHK, which stays open for the next ones.
        assert (
            min(each.descriptors for each in at_end) <= max(each.descriptors for each in warm) + CALLERS
        ), used
        assert min(each.threads for each in at_end) <= max(each.threads for each in warm), used
