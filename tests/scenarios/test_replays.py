"""A known outcome is replayed and nothing is sent; the same id with other content is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc import StatusCode

from tests.e2e.caller import Expected, rejected
from tests.e2e.samples import APIS, BIND, SYNC, Api, apart
from tests.e2e.upstream import hangs
from tests.e2e.wallet import result
from tests.scenarios.scene import Scene, changed, held, reused

REJECTIONS = {
    "PARAM_ILLEGAL": rejected(StatusCode.INVALID_ARGUMENT),
    "USER_NOT_EXIST": rejected(StatusCode.NOT_FOUND),
    "PROCESS_FAIL": rejected(StatusCode.FAILED_PRECONDITION, "never"),
    "NEVER_HEARD_OF": rejected(StatusCode.FAILED_PRECONDITION),
}
GATEWAY_REFUSED = Expected(StatusCode.INTERNAL, "GATEWAY_REFUSED", "rejected", "operator")


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_success_is_replayed_unchanged(scene: Scene, api: Api) -> None:
    request = apart(api)
    first = await scene.ok(api, request)
    again = await scene.ok(api, request, replayed=True)
    again.replayed = False
    assert again == first
    assert scene.sent(request) == 1


@pytest.mark.parametrize("code", REJECTIONS)
@pytest.mark.parametrize("api", APIS, ids=str)
async def test_rejection_is_replayed_unchanged(scene: Scene, api: Api, code: str) -> None:
    scene.upstream.script, request = scene.wallet.says(result("F", code, "the reason")), apart(api)
    first = await scene.reported(api, request, REJECTIONS[code])
    scene.upstream.script = scene.wallet.says()
    again = await scene.reported(api, request, REJECTIONS[code], replayed=True)
    assert scene.sent(request) == 1
    names = ("result_status", "result_code", "result_message", "http_status")
    assert [again.metadata[name] for name in names] == [first.metadata[name] for name in names]
    assert again.metadata["result_message"] == "the reason"


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_refusal_for_a_configuration_fault_is_not_final(scene: Scene, api: Api) -> None:
    request = apart(api)
    for count in (1, 2):
        scene.upstream.script = scene.wallet.says(result("F", "INVALID_SIGNATURE"))
        await scene.reported(api, request, GATEWAY_REFUSED)
        assert scene.sent(request) == count
    await scene.reported(api, changed(api, request), reused(api, had_no_effect=True))
    scene.upstream.script = scene.wallet.says()
    await scene.ok(api, request)
    await scene.ok(api, request, replayed=True)
    assert scene.sent(request) == 3


async def recorded(scene: Scene, api: Api, request: Any) -> None:
    """Wait until a request is recorded: the same call joins it or gets the recorded outcome."""
    answer = await scene.call(api, request)
    assert answer.result.status == "S"


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_result_after_the_caller_cancelled_is_recorded_and_replayed(scene: Scene, api: Api) -> None:
    request = apart(api)
    async with held(scene, api, request) as first:
        first.calling.cancel()
        await scene.gateway.cancel_logged(request.request_id)
        first.until.set()
        await recorded(scene, api, request)
    await scene.ok(api, request, replayed=True)
    assert scene.sent(request) == 1


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_result_after_the_callers_deadline_is_recorded_and_replayed(scene: Scene, api: Api) -> None:
    request = apart(api)
    async with held(scene, api, request, timeout_s=0.3) as first:
        assert (await first.calling).info.reason == "UPSTREAM_TIMEOUT"
        first.until.set()
        await recorded(scene, api, request)
    await scene.ok(api, request, replayed=True)
    assert scene.sent(request) == 1


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_repeated_call_joins_the_attempt_in_progress(scene: Scene, api: Api) -> None:
    request = apart(api)
    async with held(scene, api, request) as first:
        first.calling.cancel()
        await scene.gateway.cancel_logged(request.request_id)
        second = asyncio.create_task(scene.ok(api, request))
        await asyncio.sleep(0.1)
        first.until.set()
        await second
    assert scene.sent(request) == 1


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_64_concurrent_calls_with_one_id_are_sent_once(scene: Scene, api: Api) -> None:
    request = apart(api)
    async with held(scene, api, request) as first:
        others = [asyncio.create_task(scene.ok(api, request)) for _ in range(63)]
        await asyncio.sleep(0.25)
        answer = await first.let_go()
        assert [other for other in await asyncio.gather(*others) if other != answer] == []
    assert scene.sent(request) == 1


OTHER_CONTENT = {
    SYNC: {"user_id": "2160000000000777", "external_binding_id": "binding-777", "binding_target": "777"},
    BIND: {"user_id": "2160000000000777", "extend_info": '{"channel": "777"}', "account_id": "777"},
}


@pytest.mark.parametrize("state", ["applied", "rejected", "in doubt", "under way"])
@pytest.mark.parametrize("api", APIS, ids=str)
async def test_other_content_with_a_used_id_is_never_sent(scene: Scene, api: Api, state: str) -> None:
    request, expected = apart(api), reused(api, had_no_effect=state == "rejected")

    async def refused() -> None:
        for name, value in OTHER_CONTENT[api].items():
            other = changed(api, request, {name: value})
            reported = await scene.reported(api, other, expected)
            assert "777" not in str(reported.status)
        moved = changed(api, request)
        moved.CopyFrom(request)
        moment = moved.biz_time if api is SYNC else moved.timestamp
        moment.seconds += 1
        await scene.reported(api, moved, expected)
        assert scene.sent(request) == 1

    if state == "under way":
        async with held(scene, api, request) as first:
            await refused()
            assert (await first.let_go()).result.status == "S"
        return
    scripts = {"applied": scene.wallet.says(), "rejected": scene.wallet.says(result("F", "PARAM_ILLEGAL"))}
    scene.upstream.script = scripts.get(state, hangs)
    await scene.call(api, request, timeout_s=0.5)
    if state == "in doubt":
        await scene.gateway.attempt_logged(request.request_id)
    await refused()


async def test_same_id_for_another_rpc_is_another_request(scene: Scene) -> None:
    sync = apart(SYNC)
    bind = BIND.request(request_id=sync.request_id)
    await scene.ok(SYNC, sync)
    await scene.ok(BIND, bind)
    assert len(scene.upstream.requests) == 2
