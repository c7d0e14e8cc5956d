"""The faults of a chaos run. Each can be switched on alone.

Most are loops that run during the load. The proxy carries out `answer` and `duplicate`. After each round
all of them pause, so that the ledger can be compared with the other records.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from typing import Final

from service.ledger import Ledger, LedgerUnavailable
from tests.chaos.history import LEASE_S, Snapshot
from tests.chaos.proxy import KINDS
from tests.chaos.rows import SETTLED_S, rows_of
from tests.chaos.world import FULL_BYTES, POSTGRES, SQLITE, Gateway, World
from tests.postgres.server import Postgres

MINUTE_S: Final = 60.0
MONTH_S: Final = 31 * 24 * 60 * MINUTE_S
JUMPS_S: Final = (2 * MINUTE_S, 10 * MINUTE_S, 61 * MINUTE_S, MONTH_S, MONTH_S)
"""How far the wall clock jumps, in both directions: within and outside the validity window of responses."""

BURST: Final = 30
UP: Final = (0.05, 1.0)
"""How long a gateway is up between two kills, as a multiple of the time it took to start."""
ROUND_S: Final = 40.0
"""How long the faults last between two pauses."""

Loop = Callable[[World, random.Random], Awaitable[None]]


async def kill(world: World, dice: random.Random) -> None:
    """Kill one worker, or kill and restart a whole gateway."""
    await asyncio.gather(*(_kill_one(world, gateway, dice) for gateway in world.gateways))


async def _kill_one(world: World, gateway: Gateway, dice: random.Random) -> None:
    while world.kills_left > 0:
        await asyncio.sleep(dice.uniform(*UP) * gateway.start_s)
        world.kills_left -= 1
        workers = gateway.processes()
        if gateway.workers > 1 and len(workers) > 1 and dice.random() < 0.5:
            pid = dice.choice(workers)
            with world.fault("kill", f"process {pid} of gateway {gateway.name}"):
                _signal(pid, signal.SIGKILL)
        else:
            await _restart(world, gateway, f"all of gateway {gateway.name}, {workers}")


async def _restart(world: World, gateway: Gateway, detail: str) -> None:
    with world.fault("kill", detail):
        # Shielded: a start that is interrupted would leave a gateway that nobody knows.
        await asyncio.shield(gateway.restart())


async def stop(world: World, dice: random.Random) -> None:
    """Stop one process for longer than a lease, so that others take over its requests; then continue it.

    A burst of requests is made just before, so that some are between their claim and their first byte, or
    wait for their response. The process that sent last is stopped: others may be starting.
    """
    while True:
        await asyncio.sleep(dice.uniform(0.2, 1.0))
        serving = {pid: gateway for gateway in world.gateways for pid in gateway.processes()}
        if not serving:
            continue
        world.burst(BURST)
        await asyncio.sleep(dice.uniform(0.01, 0.15))
        sent_last = world.history.arrivals[-1].process if world.history.arrivals else 0
        pid = sent_last if sent_last in serving else dice.choice(list(serving))
        with world.fault("stop", f"process {pid} of gateway {serving[pid].name}"):
            _signal(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(LEASE_S + dice.uniform(0.8, 3.0))
            finally:
                _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that another fault may have killed."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


async def clock(world: World, dice: random.Random) -> None:
    """Move the wall clock of the gateways' host for a while, and often restart a gateway in that time."""
    while True:
        await asyncio.sleep(dice.uniform(3.0, 10.0))
        offset_s = dice.choice(JUMPS_S) * dice.choice((1, -1))
        with world.fault("clock", f"{offset_s:+.0f} s"):
            world.clock.move(offset_s)
            try:
                await asyncio.sleep(dice.uniform(0.1, 1.0))
                if dice.random() < 0.7:
                    gateway = dice.choice(world.gateways)
                    await _restart(
                        world, gateway, f"all of gateway {gateway.name} while the clock is wrong"
                    )
                await asyncio.sleep(dice.uniform(0.2, 1.5))
            finally:
                world.clock.move(0.0)


async def disk(world: World, dice: random.Random) -> None:
    """Prevent the gateways' files from growing, as a full disk does."""
    while True:
        await asyncio.sleep(dice.uniform(1.0, 4.0))
        limited = [pid for gateway in world.gateways for pid in gateway.processes()]
        with world.fault("disk", f"processes {limited}"):
            try:
                for pid in limited:
                    _limit_files(pid, FULL_BYTES)
                await asyncio.sleep(dice.uniform(0.3, 2.0))
            finally:
                for pid in limited:
                    _limit_files(pid, resource.RLIM_INFINITY)


def _limit_files(pid: int, size: int) -> None:
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def lock(world: World, dice: random.Random) -> None:
    """Hold the ledger's write lock, or a lock of its table, as another process would."""
    while True:
        await asyncio.sleep(dice.uniform(1.0, 4.0))
        if world.options.ledger == POSTGRES:
            await world.disturb_server("lock", _lock_table, dice.uniform(0.3, 3.0))
            continue
        with closing(sqlite3.connect(world.ledger_file, isolation_level=None, timeout=0)) as other:
            await _take_lock(other)
            with world.fault("lock", world.ledger_file.name):
                await asyncio.sleep(dice.uniform(0.3, 3.0))


async def _take_lock(connection: sqlite3.Connection) -> None:
    """Take the lock as soon as it is free."""
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError:
            await asyncio.sleep(0.002)


async def server(world: World, dice: random.Random) -> None:
    """Kill every process of the database server, and start it again."""
    while True:
        await asyncio.sleep(dice.uniform(2.0, 8.0))
        await world.disturb_server("server", _kill_server, dice.uniform(0.0, 2.0))


async def freeze(world: World, dice: random.Random) -> None:
    """Stop every process of the database server with SIGSTOP for a while; its connections stay open."""
    while True:
        await asyncio.sleep(dice.uniform(2.0, 8.0))
        await world.disturb_server("freeze", _freeze_server, dice.uniform(0.2, 4.0))


def _lock_table(postgres: Postgres, seconds: float) -> None:
    postgres.execute(f"BEGIN; LOCK TABLE alipayhk_request; SELECT pg_sleep({seconds}); COMMIT", "ledger")


def _kill_server(postgres: Postgres, seconds: float) -> None:
    postgres.kill()
    time.sleep(seconds)
    postgres.start_again()


def _freeze_server(postgres: Postgres, seconds: float) -> None:
    postgres.freeze()
    time.sleep(seconds)
    postgres.thaw()


LOOPS: Final[dict[str, Loop]] = {
    "kill": kill,
    "stop": stop,
    "clock": clock,
    "disk": disk,
    "lock": lock,
    "server": server,
    "freeze": freeze,
}
FAULTS: Final = {
    SQLITE: ("kill", "stop", "clock", "disk", "lock", *KINDS),
    POSTGRES: ("kill", "stop", "clock", "lock", "server", "freeze", *KINDS),
}
"""The faults of a run with each ledger."""


async def disturb(world: World, ledger: Ledger) -> None:
    """Run rounds of faults until the last kill, or without kills for `seconds`."""
    options = world.options
    dice = {name: options.dice(name) for name in LOOPS if name in options.faults}
    ends = time.monotonic() + options.seconds
    while world.kills_left > 0 if "kill" in dice else time.monotonic() < ends:
        await _round(world, dice, ROUND_S if "kill" in dice else min(ROUND_S, options.seconds))
        await _settle(world, ledger)


async def _round(world: World, dice: dict[str, random.Random], seconds: float) -> None:
    """Run the faults for some time, or until the last kill."""
    world.proxy.is_disturbing = True
    loops = [asyncio.ensure_future(LOOPS[name](world, dice[name])) for name in dice]
    ends = asyncio.ensure_future(asyncio.sleep(seconds))
    try:
        done, _ = await asyncio.wait({ends, *loops}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (ends, *loops):
            task.cancel()
        await asyncio.gather(ends, *loops, return_exceptions=True)
        world.proxy.is_disturbing = False
        world.clock.move(0.0)


async def _settle(world: World, ledger: Ledger) -> None:
    """Wait until the processes that run have recorded their results; then read the ledger."""
    await asyncio.gather(*(gateway.ensure_running() for gateway in world.gateways))
    await asyncio.sleep(SETTLED_S)
    at = time.monotonic()
    processes = frozenset(pid for gateway in world.gateways for pid in gateway.processes())
    with suppress(LedgerUnavailable):
        rows = await rows_of(ledger, world.clock.now_ms())
        world.history.snapshot = Snapshot(at, rows, processes)
