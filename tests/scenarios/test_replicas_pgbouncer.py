"""Two replicas whose database is behind PgBouncer keep every promise, in both of its modes."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.e2e.samples import APIS, BIND
from tests.e2e.upstream import Upstream
from tests.postgres.fixtures import StartPostgres
from tests.postgres.pgbouncer import PgBouncer
from tests.scenarios.conftest import RunReplicas
from tests.scenarios.replica_load import Load
from tests.scenarios.test_replicas import check_order, check_sent_once

CALLS_EACH: Final = 16
LOAD_S: Final = 2.0
SESSIONS: Final = 2
"""Fewer sessions than one replica has connections."""


async def test_promises_hold_behind_pgbouncer_in_transaction_mode(
    run_replicas: RunReplicas, start_postgres: StartPostgres, upstream: Upstream
) -> None:
    server = start_postgres()
    server.create_database("ledger")
    bouncer = PgBouncer.start(server, default_pool_size=SESSIONS)
    url = f"{bouncer.url('ledger')}?prepared_statements=false"
    async with run_replicas(url, UPSTREAM_TIMEOUT_S="10") as systems:
        for api in APIS:
            await check_sent_once(systems, api, CALLS_EACH)
        await check_order(systems, server, "ledger", (5, 3, 4, 2))
        upstream.script, load = systems[0].wallet.says(), Load(systems)
        async with load.running():
            await asyncio.sleep(LOAD_S)
            await load.until_ok()
            await asyncio.to_thread(bouncer.kill)
            await asyncio.to_thread(bouncer.start_again)
            await load.until_ok()
        load.check()
        assert load.reasons()["OK"] > len(load.made) / 2, load.reasons()
        await load.check_again(systems[1])


async def test_promises_hold_behind_pgbouncer_in_session_mode(
    run_replicas: RunReplicas, start_postgres: StartPostgres, upstream: Upstream
) -> None:
    server = start_postgres()
    server.create_database("ledger")
    bouncer = PgBouncer.start(server, "session")
    async with run_replicas(bouncer.url("ledger"), UPSTREAM_TIMEOUT_S="10") as systems:
        await check_sent_once(systems, BIND, CALLS_EACH)
        await check_order(systems, server, "ledger", (5, 3, 4, 2))
