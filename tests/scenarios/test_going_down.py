"""SIGTERM with a ledger: sent requests are finished and recorded, and the next gateway knows them."""

from __future__ import annotations

import asyncio
import time

from grpc import StatusCode

from tests.e2e.caller import check, doubt
from tests.e2e.samples import APIS, BIND, apart
from tests.e2e.upstream import hangs
from tests.scenarios.conftest import Stage
from tests.scenarios.scene import IN_DOUBT


async def test_request_without_a_response_is_in_doubt_for_the_next_gateway(stage: Stage) -> None:
    request = apart(BIND)
    async with stage() as scene:
        scene.upstream.script = hangs
        calling = asyncio.create_task(scene.call(BIND, request))
        await scene.upstream.request_came()
        scene.gateway.terminate()
        began = time.monotonic()
        assert await scene.gateway.ended() == 0
        assert time.monotonic() - began < 5
        timed_out = doubt("UPSTREAM_TIMEOUT", promised=False, code=StatusCode.DEADLINE_EXCEEDED)
        check(await calling, timed_out, request)
    async with stage() as scene:
        scene.upstream.script = scene.wallet.says()
        await scene.reported(BIND, request, IN_DOUBT)
        assert scene.sent(request) == 1


async def test_attempts_of_disconnected_callers_are_all_recorded(stage: Stage) -> None:
    requests = [(api, apart(api)) for api in APIS for _ in range(20)]
    until = asyncio.Event()
    async with stage({"UPSTREAM_TIMEOUT_S": "4"}) as scene:
        right = scene.upstream.script

        async def script(request: object, peer: object) -> None:
            await until.wait()
            await right(request, peer)  # type: ignore[arg-type]

        scene.upstream.script = script
        calls = [asyncio.create_task(scene.call(api, request)) for api, request in requests]
        await scene.upstream.request_came(len(requests))
        for calling in calls:
            calling.cancel()
        scene.gateway.terminate()
        await scene.gateway.logged(lambda line: line["event"] == "stopping")
        until.set()
        assert await scene.gateway.ended() == 0
    async with stage() as scene:
        for api, request in requests:
            await scene.ok(api, request, replayed=True)
            assert scene.sent(request) == 1
