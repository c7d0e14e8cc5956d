"""Replicas on one PostgreSQL database act as one gateway: each request is sent once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.e2e.samples import APIS, BIND, SYNC, Api, fresh_request
from tests.e2e.upstream import Peer, Request, Upstream
from tests.e2e.wallet import id_of
from tests.postgres.server import Postgres
from tests.scenarios.conftest import RunReplicas
from tests.scenarios.system import IN_DOUBT, System, changed, held, reused
from tests.scenarios.test_order import Linkage

CALLS_EACH: Final = 64
PATIENCE_S: Final = 40.0
WAITS_S: Final = 1.0
"""How long calls wait for one at another replica; it asks the database several times in this time."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def three(run_replicas: RunReplicas, postgres: Postgres) -> AsyncIterator[list[System]]:
    """Run three replicas that the tests share; they start on an empty database at the same time."""
    postgres.create_database("three")
    async with run_replicas(postgres.url("three"), "abc", UPSTREAM_TIMEOUT_S="10") as systems:
        yield systems


@pytest.fixture
def systems(three: list[System], upstream: Upstream) -> list[System]:
    """Return the shared replicas; their upstream has received no request yet."""
    return three


async def until_queued(server: Postgres, database: str, requests: Sequence[Any]) -> None:
    """Wait until the database has a place in the queue of its linkage for each of these requests."""
    ids = ", ".join(f"'{request.request_id}'" for request in requests)
    count = f"SELECT count(DISTINCT request_id) FROM alipayhk_waiting WHERE request_id IN ({ids})"
    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(server.execute, count, database) != str(len(requests)):  # noqa: ASYNC110  (the database tells nobody)
            await asyncio.sleep(0.05)


async def check_sent_once(systems: list[System], api: Api, calls_each: int) -> None:
    """Make many calls with one id at two replicas: one is sent, and all get its result."""
    first, second = systems[:2]
    request = fresh_request(api)
    async with held(first, api, request, timeout_s=PATIENCE_S) as sent:
        calling = [
            asyncio.create_task(system.served(api, request, timeout_s=PATIENCE_S))
            for system in (first, second)
            for _ in range(calls_each)
        ]
        await first.until_open(api, 1 + calls_each)
        await second.until_open(api, calls_each)
        await asyncio.sleep(WAITS_S)
        answers = [await sent.release(), *await asyncio.gather(*calling)]
    assert [answer.replayed for answer in answers] == [False] * (1 + calls_each) + [True] * calls_each
    for answer in answers:
        answer.replayed = False
        assert answer == answers[0]
    await second.reported(api, changed(api, request), reused(api))
    assert first.sent(request) == 1


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_same_id_at_two_replicas_is_sent_once(systems: list[System], api: Api) -> None:
    await check_sent_once(systems, api, CALLS_EACH)


class Watch:
    """A script of the upstream that records the order of requests, and how many are in progress."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._in_progress = 0
        self.in_progress_max = 0
        self.order: list[str] = []

    async def __call__(self, request: Request, peer: Peer) -> None:
        self._in_progress += 1
        self.in_progress_max = max(self.in_progress_max, self._in_progress)
        self.order.append(id_of(request))
        await asyncio.sleep(0.05)
        self._in_progress -= 1
        await peer.send(self._system.wallet.right(request).wire())


async def check_order(
    systems: list[System], server: Postgres, database: str, seconds: tuple[int, ...]
) -> None:
    """Make requests for one linkage while one is in progress; they follow it one by one, in order."""
    linkage, first, calling = Linkage(), systems[0], []
    requests = [linkage.at(second) for second in seconds]
    async with held(first, SYNC, linkage.at(1), timeout_s=PATIENCE_S) as sent:
        for system, request in zip(cycle(systems), requests, strict=False):
            calling.append(asyncio.create_task(system.ok(SYNC, request, timeout_s=PATIENCE_S)))
            await until_queued(server, database, requests[: len(calling)])
        first.upstream.script = watch = Watch(first)
        await sent.release()
        await asyncio.gather(*calling)
    requests.sort(key=lambda request: request.biz_time.seconds)
    assert watch.order == [request.request_id for request in requests]
    assert watch.in_progress_max == 1


@pytest.mark.parametrize("seconds", [(5, 3, 4, 2), (5, 4, 6, 7, 2, 3)], ids=str)
async def test_requests_for_one_linkage_are_sent_in_order_by_all_replicas(
    systems: list[System], postgres: Postgres, seconds: tuple[int, ...]
) -> None:
    """Some are older than one that arrived at their replica before them."""
    await check_order(systems, postgres, "three", seconds)


async def test_requests_of_a_killed_replica_are_taken_over_or_in_doubt(
    run_replicas: RunReplicas, postgres_url: str, upstream: Upstream
) -> None:
    requests: list[tuple[Api, Any]] = [(api, fresh_request(api)) for api in APIS]
    async with AsyncExitStack() as stack:
        (first,) = await stack.enter_async_context(run_replicas(postgres_url, "a"))
        (other,) = await stack.enter_async_context(run_replicas(postgres_url, "b"))
        for api, request in requests:
            await stack.enter_async_context(held(first, api, request, timeout_s=PATIENCE_S))
        await first.gateway.kill()
        upstream.script = first.wallet.says()
        (_, sync), (_, bind) = requests
        await asyncio.gather(other.ok(SYNC, sync), other.reported(BIND, bind, IN_DOUBT))
        await other.reported(BIND, bind, IN_DOUBT)
        async with run_replicas(postgres_url, "a") as (again,):
            await again.ok(SYNC, sync, replayed=True)
            await again.reported(BIND, bind, IN_DOUBT)
            assert (await again.resolve(bind, "applied")).status == 0
            for system in (again, other):
                response = await system.call(BIND, bind)
                assert (response.replayed, response.resolved_by_operator) == (True, True)
    assert (first.sent(sync), first.sent(bind)) == (2, 1)
