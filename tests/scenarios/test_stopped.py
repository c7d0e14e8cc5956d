"""Workers that are stopped between claim and first byte, and continue after an operator resolved requests.

SIGSTOP, a frozen control group or a suspended machine can stop a process between any two statements for any
time. When it continues, its lease has expired and other processes report its requests as in doubt.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any, Final

import pytest
from grpc import StatusCode

from service.ledger import Ending, Ledger, LedgerUnavailable, State
from service.ledger.opening import file_of, open_ledger
from tests.e2e import caller
from tests.e2e.caller import Reported, rejected
from tests.e2e.gateway import channel_to
from tests.e2e.samples import BIND
from tests.e2e.upstream import Peer, Request, Script
from tests.e2e.wallet import Wallet
from tests.ports import free_port
from tests.scenarios.conftest import RunSystem
from tests.scenarios.system import System
from tests.scenarios.test_workers import workers_of

CALLS: Final = 40
"""They are signed one after the other, so some stay between claim and first byte for tens of ms."""
DELAYS_S: Final = (0.0, 0.002, 0.004, 0.007, 0.01)
"""The delays after the last claim before the workers are stopped; each stop uses the next one."""
CLAIMED_S: Final = 3.0
OPEN_S: Final = 2.0
UPSTREAM_TIMEOUT_S: Final = 0.5
LEASE_S: Final = UPSTREAM_TIMEOUT_S + 1.0
REASONS: Final = {
    "CONNECTION_LOST",
    "LEDGER_UNAVAILABLE",
    "OVERLOADED",
    "UPSTREAM_TIMEOUT",
    "UPSTREAM_UNREACHABLE",
}
"""The reasons that a stopped call may report, whether it was stopped before or after its first byte.

OVERLOADED: on a busy machine, a call waited in gRPC's queue when its worker was stopped.
"""


@dataclass(frozen=True)
class Stopped:
    """The counts of one stop."""

    resolved: int
    arrived_afterwards: int


async def resolved_while_stopped(system: System, delay_s: float) -> Stopped:
    """Stop both workers during calls, resolve the requests that were not sent, and continue the workers."""
    requests = [BIND.request() for _ in range(CALLS)]
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(channel_to(system.gateway.address)) for _ in range(6)]
        began_ms = time.time_ns() // 1_000_000
        calls = [
            asyncio.create_task(caller.call(channels[number % 6], BIND, request, timeout_s=30))
            for number, request in enumerate(requests)
        ]
        # The supervisor first: alone, it would replace the workers.
        workers = [system.gateway.process.pid, *workers_of(system.gateway)]
        await asyncio.to_thread(stop_when_claimed, system, workers, began_ms, delay_s)
        # In a thread: a stopped worker may hold the lock of the marker.
        url = system.gateway.settings["LEDGER_URL"]
        opening = asyncio.ensure_future(asyncio.to_thread(open_ledger, url, None, random_bytes=os.urandom))
        try:
            await asyncio.sleep(LEASE_S + 0.1)
            unsent = [request for request in requests if not system.sent(request)]
            is_open = bool((await asyncio.wait({opening}, timeout=OPEN_S))[0])
            resolved = await resolve(opening.result()[0], unsent) if is_open else []
        finally:
            for worker in workers:
                os.kill(worker, signal.SIGCONT)
            await (await opening)[0].close()
        results = await asyncio.gather(*calls)
        for request in resolved:
            reported = await caller.call(channels[0], BIND, request)
            caller.check(reported, rejected(StatusCode.FAILED_PRECONDITION), request)
    reasons = {result.info.reason for result in results if isinstance(result, Reported)}
    assert reasons <= REASONS | {"WALLET_REJECTED", "OUTCOME_IN_DOUBT"}, reasons
    return Stopped(len(resolved), sum(system.sent(request) for request in resolved))


def stop_when_claimed(system: System, workers: list[int], began_ms: int, delay_s: float) -> None:
    """Stop the workers `delay_s` after the ledger contains every claim, when no process holds its lock."""
    path = file_of(system.gateway.settings["LEDGER_URL"])
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        count = "SELECT count(*) FROM request WHERE created_ms >= ?"
        give_up = time.monotonic() + CLAIMED_S
        # On a busy machine an attempt may time out and its claim be undone: stop the workers anyway.
        while connection.execute(count, (began_ms,)).fetchone() < (CALLS,) and time.monotonic() < give_up:
            pass
    time.sleep(delay_s)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)


async def resolve(ledger: Ledger, requests: list[Any]) -> list[Any]:
    """Record as an operator that requests were rejected; return those that were in doubt."""
    ending, now_ms = Ending(State.REJECTED), time.time_ns() // 1_000_000
    resolved = []
    with suppress(LedgerUnavailable):  # a worker was stopped within a transaction and holds the lock
        for request in requests:
            rows = await ledger.find(request.request_id)
            if rows and await ledger.resolve(rows[0].key, ending, who="ops", why="asked", now_ms=now_ms):
                resolved.append(request)
    return resolved


async def stop_often(run_system: RunSystem, wallet: Wallet, times: int) -> None:
    """Stop workers until `times` stops led to resolved requests; check that no such request is sent."""
    more = {"WORKERS": "2", "UPSTREAM_TIMEOUT_S": str(UPSTREAM_TIMEOUT_S)}
    stops: list[Stopped] = []
    while sum(stop.resolved > 0 for stop in stops) < times:
        assert len(stops) < 20 * times, f"too few stops fell between claim and first byte: {stops}"
        # A new gateway for each stop: calls that time out because of the stop open the breaker.
        async with run_system(more | {"LISTEN": f"127.0.0.1:{free_port()}"}) as system:
            await system.gateway.wait_for_workers(2)
            system.upstream.reset(slow(wallet))
            stops.append(await resolved_while_stopped(system, DELAYS_S[len(stops) % len(DELAYS_S)]))
    assert sum(stop.arrived_afterwards for stop in stops) == 0, stops


def slow(wallet: Wallet) -> Script:
    """Return a script that responds correctly after every call was claimed and the workers were stopped."""

    async def script(request: Request, peer: Peer) -> None:
        await asyncio.sleep(UPSTREAM_TIMEOUT_S / 2)
        await peer.send(wallet.right(request).wire())

    return script


async def test_request_resolved_while_its_worker_was_stopped_is_never_sent(
    run_system: RunSystem, wallet: Wallet
) -> None:
    await stop_often(run_system, wallet, 1)


@pytest.mark.full
async def test_request_resolved_while_its_worker_was_stopped_is_never_sent_in_30_stops(
    run_system: RunSystem, wallet: Wallet
) -> None:
    await stop_often(run_system, wallet, 30)
