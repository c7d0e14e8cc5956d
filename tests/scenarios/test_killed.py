"""SIGKILL at every stage, then a restart on the same ledger: no outcome is lost, no account bound twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpc import StatusCode

from tests.e2e.caller import Expected, not_sent
from tests.e2e.conftest import Run
from tests.e2e.gateway import Settings
from tests.e2e.samples import APIS, BIND, SYNC, Api, fresh_request
from tests.e2e.test_unreachable import silent_listener
from tests.e2e.upstream import Upstream
from tests.e2e.wallet import Wallet
from tests.scenarios.conftest import PATIENT, RunSystem
from tests.scenarios.system import IN_DOUBT, System, held

IN_PROGRESS = Expected(StatusCode.ABORTED, "REQUEST_IN_PROGRESS", "unknown", "same_request_id")
BUSY = not_sent(StatusCode.ABORTED, "LINKAGE_BUSY")


@asynccontextmanager
async def restarted_after_kill(
    run_system: RunSystem, wallet: Wallet, api: Api, request: Any, more: Settings | None = None
) -> AsyncIterator[System]:
    """Kill a gateway while its request is at AlipayHK; run another one on its ledger."""
    async with run_system(more) as system, held(system, api, request):
        await system.gateway.kill()
    assert system.sent(request) == 1
    async with run_system(more) as system:
        system.upstream.script = wallet.says()
        yield system


async def test_sent_sync_linkage_is_resent_after_a_kill(run_system: RunSystem, wallet: Wallet) -> None:
    request = fresh_request(SYNC)
    async with restarted_after_kill(run_system, wallet, SYNC, request) as system:
        await system.ok(SYNC, request)
        assert system.sent(request) == 2
        await system.ok(SYNC, request, replayed=True)
        assert system.sent(request) == 2


async def test_sent_bind_account_is_in_doubt_after_a_kill(run_system: RunSystem, wallet: Wallet) -> None:
    request = BIND.request()
    async with restarted_after_kill(run_system, wallet, BIND, request) as system:
        for _ in range(2):
            await system.reported(BIND, request, IN_DOUBT)
        assert system.sent(request) == 1
        assert (await system.resolve(request, "applied")).status == 0
        assert (await system.call(BIND, request)).resolved_by_operator


async def test_lease_longer_than_the_callers_deadline_is_reported(
    run_system: RunSystem, wallet: Wallet
) -> None:
    """A lease lasts UPSTREAM_TIMEOUT_S + 1 s.

    The deadline is the default one: on a busy machine a caller's own one could expire before its status.
    """
    request, more = fresh_request(SYNC), {**PATIENT, "DEFAULT_DEADLINE_S": "1.5"}
    async with restarted_after_kill(run_system, wallet, SYNC, request, more) as system:
        await system.reported(SYNC, request, IN_PROGRESS, timeout_s=None)
        newer = fresh_request(SYNC, external_identity_value=request.external_identity_value)
        newer.biz_time.seconds += 1
        await system.reported(SYNC, newer, BUSY, timeout_s=None)
        assert len(system.upstream.requests) == 1
        await system.ok(SYNC, newer, timeout_s=30)
        await system.ok(SYNC, request)
        assert (system.sent(newer), system.sent(request)) == (1, 2)


async def test_returned_response_is_replayed_after_a_kill(run_system: RunSystem) -> None:
    """The gateway is killed as soon as the caller has the response, which was recorded before."""
    request = fresh_request(BIND)
    async with run_system() as system:
        reported = await system.ok(BIND, request)
        await system.gateway.kill()
    async with run_system() as system:
        again = await system.ok(BIND, request, replayed=True)
        assert again.result == reported.result
        assert system.sent(request) == 1


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_request_claimed_before_a_kill_counts_as_sent(
    run_system: RunSystem, wallet: Wallet, api: Api
) -> None:
    """The gateway is killed while it connects, so the ledger cannot know that nothing was sent."""
    request = fresh_request(api)
    async with silent_listener() as listener:
        async with run_system({"BASE_URL": f"https://127.0.0.1:{listener.port}"}) as system:
            calling = asyncio.create_task(system.call(api, request))
            await listener.received.wait()
            await system.gateway.kill()
            await calling
        assert not any(request.request_id.encode() in data for data in listener.data)
    async with run_system() as system:
        if api is SYNC:
            await system.ok(api, request)
            assert system.sent(request) == 1
        else:
            await system.reported(api, request, IN_DOUBT)
            assert system.sent(request) == 0


async def test_refused_call_leaves_no_doubt_after_a_kill(run_system: RunSystem) -> None:
    """The call failed without a connection, and its claim was undone: the id is free for other content."""
    request = fresh_request(BIND)
    unreachable = not_sent(StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
    async with run_system({"BASE_URL": "http://127.0.0.1:1", "DEFAULT_DEADLINE_S": "1.5"}) as system:
        await system.reported(BIND, request, unreachable, timeout_s=None)
        await system.gateway.kill()
    request.user_id = "2160000000000777"
    async with run_system() as system:
        await system.ok(BIND, request)


async def test_concurrent_calls_keep_their_outcomes_after_a_kill(
    run_system: RunSystem, upstream: Upstream, wallet: Wallet, run: Run
) -> None:
    """The gateway is killed after some calls have a response; the ledger knows the state of every id."""
    requests: dict[str, tuple[Api, Any]] = {}
    for number in range(60):
        api = APIS[number % 2]
        request = fresh_request(api)
        requests[request.request_id] = (api, request)
    async with run_system() as system:
        calls = {
            name: asyncio.create_task(system.served(api, request))
            for name, (api, request) in requests.items()
        }
        await upstream.wait_for_request(25)
        await system.gateway.kill()
        results = {name: await calling for name, calling in calls.items()}
    returned_ok = {name for name, result in results.items() if hasattr(result, "replayed")}
    async with run_system() as system:
        # One after the other: on a busy machine the gateway may refuse sixty concurrent calls.
        again = [await system.call(api, request) for api, request in requests.values()]
        for (name, (api, request)), result in zip(requests.items(), again, strict=True):
            if name in returned_ok:
                assert result.replayed
            if api is BIND:
                assert system.sent(request) <= 1
            if not hasattr(result, "replayed"):
                assert (api, result.info.reason) == (BIND, "OUTCOME_IN_DOUBT")
