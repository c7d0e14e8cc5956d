"""A gateway with two workers on PostgreSQL, and its readiness and metrics while the database is gone."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

from tests.e2e import caller
from tests.e2e.caller import Reported
from tests.e2e.gateway import channel_to, get
from tests.e2e.operations import SERVING, health, metrics
from tests.e2e.samples import APIS, BIND, fresh_request
from tests.e2e.upstream import Upstream
from tests.ports import free_port
from tests.postgres.fixtures import StartPostgres
from tests.scenarios.conftest import RunReplicas
from tests.scenarios.system import LEDGER_UNAVAILABLE, System, held
from tests.scenarios.test_ledger_trouble import wait_until_recovered

CHANNELS: Final = 16
USABLE: Final = "alipayhk_ledger_usable"
UNRECORDED: Final = "alipayhk_ledger_unrecorded"


async def check_sent_once_by_workers(system: System) -> None:
    """Call with one id over many connections, which the kernel distributes over both workers."""
    request = fresh_request(BIND)
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(channel_to(system.gateway.address)) for _ in range(CHANNELS)
        ]
        async with held(system, BIND, request) as first:
            calls = [asyncio.create_task(caller.call(channel, BIND, request)) for channel in channels]
            await asyncio.sleep(1.0)
            await first.release()
            results = await asyncio.gather(*calls)
    assert [result for result in results if isinstance(result, Reported)] == []
    assert {result.replayed for result in results} == {False, True}, "one worker served all calls"
    assert system.sent(request) == 1


async def test_two_workers_and_a_database_that_is_gone(
    run_replicas: RunReplicas, start_postgres: StartPostgres, upstream: Upstream
) -> None:
    server = start_postgres()
    server.create_database("ledger")
    more = {"WORKERS": "2", "LISTEN": f"127.0.0.1:{free_port()}", "UPSTREAM_TIMEOUT_S": "8"}
    async with run_replicas(server.url("ledger"), "a", **more) as (system,):
        gateway = system.gateway
        await gateway.wait_for_workers(2)
        await check_sent_once_by_workers(system)
        assert (await metrics(gateway))[USABLE] == 1
        request = fresh_request(BIND)
        async with held(system, BIND, request) as sent:
            await asyncio.to_thread(server.kill)
            assert (await sent.release()).result.status == "S"
        upstream.script = system.wallet.says()
        for api in APIS:
            await system.reported(api, fresh_request(api), LEDGER_UNAVAILABLE)
        samples = await metrics(gateway)
        assert (samples[USABLE], samples[UNRECORDED]) == (0, 1)
        assert (await get(gateway.admin, "/readyz"))[0] == 200
        assert await health(gateway.channel) == SERVING
        await asyncio.to_thread(server.start_again)
        assert (await wait_until_recovered(system, BIND, request)).replayed
        assert (await metrics(gateway))[UNRECORDED] == 0
        assert system.sent(request) == 1
        await asyncio.to_thread(server.freeze)  # and the workers still stop with exit status 0
    logged = [record["level"] for record in gateway.records if record["event"] == "ledger unavailable"]
    assert set(logged) == {"error"}
    assert len(logged) <= 2, "a worker logged it more than once"
