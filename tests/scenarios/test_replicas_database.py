"""The database of two replicas is killed, restarted, frozen and failed over under load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from service.jobs.maintenance import LEDGER_CLOSE_S
from tests.e2e.samples import BIND, fresh_request
from tests.e2e.upstream import Upstream
from tests.postgres.fixtures import StartPostgres
from tests.postgres.server import OWNER
from tests.scenarios.conftest import RunReplicas
from tests.scenarios.replica_load import Load

GRACE_S: Final = 6.0
BUSY: Final = {"OVERLOADED", "DEADLINE_EXCEEDED"}
"""What a busy machine adds to the reasons; `Load.check` limits the second one, which has no details."""
BUSY_S: Final = 5.0
"""What a busy machine adds to the duration of a shutdown, in seconds."""
UNDONE_WITHIN_S: Final = 4.0
"""Time after a freeze until claims without an answer are undone, in seconds."""
CONNECTIONS_MAX: Final = 20
"""Twice what the gateways need; docs/scale.md has the reason."""
SETTINGS: Final = {"UPSTREAM_TIMEOUT_S": "2", "STOP_GRACE_S": f"{GRACE_S:g}"}


@asynccontextmanager
async def unavailable(
    load: Load, stop: Callable[[], None], start: Callable[[], None]
) -> AsyncIterator[None]:
    """Keep the database unavailable during the block; check what callers get, and that calls recover."""
    await asyncio.to_thread(stop)
    since = time.monotonic()
    yield
    await load.until_refused(since)
    until = time.monotonic()
    await asyncio.to_thread(start)
    await load.until_ok()
    reasons = load.reasons(since, until)
    # The last calls may be in time.
    assert reasons.keys() <= {"LEDGER_UNAVAILABLE", "OK", *BUSY}, reasons


async def test_database_is_killed_restarted_and_frozen(
    run_replicas: RunReplicas, start_postgres: StartPostgres, upstream: Upstream
) -> None:
    server = start_postgres()
    server.create_database("ledger")
    async with run_replicas(server.url("ledger"), **SETTINGS) as (first, second):
        load = Load([first, second])
        async with load.running():
            await load.until_ok()
            async with unavailable(load, server.kill, server.start_again):
                await asyncio.sleep(1.5)
            async with unavailable(load, server.stop, server.start_again):
                await asyncio.sleep(0.5)
            async with unavailable(load, server.freeze, server.thaw):
                await asyncio.sleep(2.0)
            await asyncio.sleep(UNDONE_WITHIN_S)
            load.systems.remove(second)
            async with unavailable(load, server.freeze, server.thaw):
                requests = [fresh_request(BIND) for _ in range(4)]
                for reported in await asyncio.gather(*(second.call(BIND, request) for request in requests)):
                    assert (reported.info.reason, reported.metadata["outcome"]) == (
                        "LEDGER_UNAVAILABLE",
                        "not_sent",
                    )
                stopped = time.monotonic()
                second.gateway.terminate()
                assert await second.gateway.ended() == 0
                assert time.monotonic() - stopped < GRACE_S + LEDGER_CLOSE_S + BUSY_S
            await asyncio.sleep(UNDONE_WITHIN_S)
        load.check()
        # The second replica could not undo the claims of its last calls, and named them.
        lines = (line for line in second.gateway.records if line["event"] == "claim not undone at shutdown")
        named = {line["request_id"] for line in lines}
        assert named >= {request.request_id for request in requests}
        last = [made for made in load.made if made.request.request_id in named]
        await load.check_again(first, may_be_in_doubt=last)


async def test_database_fails_over_to_a_synchronous_standby(
    run_replicas: RunReplicas, start_postgres: StartPostgres, upstream: Upstream
) -> None:
    """The old primary is frozen: it accepts connections and never answers."""
    primary = start_postgres()
    standby = primary.standby()
    primary.create_database("ledger")
    primary.execute(f"ALTER ROLE {OWNER} CONNECTION LIMIT {CONNECTIONS_MAX}")
    async with run_replicas(primary.url("ledger", standby), **SETTINGS) as systems:
        load = Load(systems)
        async with load.running():
            await load.until_ok()
            # Commits wait for the standby, and the primary keeps the connections that the gateways gave up.
            async with unavailable(load, standby.freeze, standby.thaw):
                await asyncio.sleep(2.0)
            async with unavailable(load, primary.freeze, standby.promote):
                await asyncio.sleep(1.0)
            await asyncio.to_thread(primary.kill)
            await load.until_ok()
            await asyncio.sleep(UNDONE_WITHIN_S)
        load.check()
        await load.check_again(systems[0])
