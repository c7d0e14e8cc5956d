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
from tests.e2e.samples import APIS, BIND, SYNC, Api, apart
from tests.e2e.test_unreachable import silent
from tests.e2e.upstream import Upstream
from tests.e2e.wallet import Wallet
from tests.scenarios.conftest import Stage
from tests.scenarios.scene import IN_DOUBT, Scene, held

IN_PROGRESS = Expected(StatusCode.ABORTED, "REQUEST_IN_PROGRESS", "unknown", "same_request_id")
BUSY = not_sent(StatusCode.ABORTED, "LINKAGE_BUSY")


@asynccontextmanager
async def killed_in_mid_call(
    stage: Stage, wallet: Wallet, api: Api, request: Any, more: Settings | None = None
) -> AsyncIterator[Scene]:
    """Kill a gateway while its request is at AlipayHK; run another one on its ledger."""
    async with stage(more) as scene, held(scene, api, request):
        await scene.gateway.kill()
    assert scene.sent(request) == 1
    async with stage(more) as scene:
        scene.upstream.script = wallet.says()
        yield scene


async def test_sent_sync_linkage_is_resent_after_a_kill(stage: Stage, wallet: Wallet) -> None:
    request = apart(SYNC)
    async with killed_in_mid_call(stage, wallet, SYNC, request) as scene:
        await scene.ok(SYNC, request)
        assert scene.sent(request) == 2
        await scene.ok(SYNC, request, replayed=True)
        assert scene.sent(request) == 2


async def test_sent_bind_account_is_in_doubt_after_a_kill(stage: Stage, wallet: Wallet) -> None:
    request = BIND.request()
    async with killed_in_mid_call(stage, wallet, BIND, request) as scene:
        for _ in range(2):
            await scene.reported(BIND, request, IN_DOUBT)
        assert scene.sent(request) == 1
        assert (await scene.resolve(request, "applied")).status == 0
        assert (await scene.call(BIND, request)).resolved_by_operator


async def test_lease_longer_than_the_callers_deadline_is_reported(stage: Stage, wallet: Wallet) -> None:
    """A lease lasts UPSTREAM_TIMEOUT_S + 1 s."""
    request, more = apart(SYNC), {"UPSTREAM_TIMEOUT_S": "4"}
    async with killed_in_mid_call(stage, wallet, SYNC, request, more) as scene:
        await scene.reported(SYNC, request, IN_PROGRESS, timeout_s=0.4)
        newer = apart(SYNC, external_identity_value=request.external_identity_value)
        newer.biz_time.seconds += 1
        await scene.reported(SYNC, newer, BUSY, timeout_s=0.4)
        assert len(scene.upstream.requests) == 1
        await scene.ok(SYNC, newer)
        await scene.ok(SYNC, request)
        assert (scene.sent(newer), scene.sent(request)) == (1, 2)


async def test_returned_response_is_replayed_after_a_kill(stage: Stage) -> None:
    """The gateway is killed as soon as the caller has the response, which was recorded before."""
    request = apart(BIND)
    async with stage() as scene:
        reported = await scene.ok(BIND, request)
        await scene.gateway.kill()
    async with stage() as scene:
        again = await scene.ok(BIND, request, replayed=True)
        assert again.result == reported.result
        assert scene.sent(request) == 1


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_request_claimed_before_a_kill_counts_as_sent(stage: Stage, wallet: Wallet, api: Api) -> None:
    """The gateway is killed while it connects, so the ledger cannot know that nothing was sent."""
    request = apart(api)
    async with silent() as listener:
        async with stage({"BASE_URL": f"https://127.0.0.1:{listener.port}"}) as scene:
            calling = asyncio.create_task(scene.call(api, request))
            await listener.came.wait()
            await scene.gateway.kill()
            await calling
        assert not any(request.request_id.encode() in data for data in listener.data)
    async with stage() as scene:
        if api is SYNC:
            await scene.ok(api, request)
            assert scene.sent(request) == 1
        else:
            await scene.reported(api, request, IN_DOUBT)
            assert scene.sent(request) == 0


async def test_refused_call_leaves_no_doubt_after_a_kill(stage: Stage) -> None:
    """The call failed without a connection, and its claim was undone: the id is free for other content."""
    request = apart(BIND)
    unreachable = not_sent(StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
    async with stage({"BASE_URL": "http://127.0.0.1:1"}) as scene:
        await scene.reported(BIND, request, unreachable, timeout_s=0.4)
        await scene.gateway.kill()
    request.user_id = "2160000000000777"
    async with stage() as scene:
        await scene.ok(BIND, request)


async def test_concurrent_calls_keep_their_outcomes_after_a_kill(
    stage: Stage, upstream: Upstream, wallet: Wallet, run: Run
) -> None:
    """The gateway is killed after some calls have a response; the ledger knows the state of every id."""
    requests: dict[str, tuple[Api, Any]] = {}
    for number in range(60):
        api = APIS[number % 2]
        request = apart(api)
        requests[request.request_id] = (api, request)
    async with stage() as scene:
        calls = {
            name: asyncio.create_task(scene.call(api, request)) for name, (api, request) in requests.items()
        }
        await upstream.request_came(25)
        await scene.gateway.kill()
        answers = {name: await calling for name, calling in calls.items()}
    told_ok = {name for name, answer in answers.items() if hasattr(answer, "replayed")}
    async with stage() as scene:
        # One after the other: on a busy machine the gateway may refuse sixty concurrent calls.
        again = [await scene.call(api, request) for api, request in requests.values()]
        for (name, (api, request)), answer in zip(requests.items(), again, strict=True):
            if name in told_ok:
                assert answer.replayed
            if api is BIND:
                assert scene.sent(request) <= 1
            if not hasattr(answer, "replayed"):
                assert (api, answer.info.reason) == (BIND, "OUTCOME_IN_DOUBT")
