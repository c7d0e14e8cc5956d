"""A known outcome is replayed and nothing is sent; the same id with other content is refused."""

from __future__ import annotations

import asyncio

import pytest
from grpc import StatusCode

from tests.e2e.caller import Expected, rejected
from tests.e2e.samples import APIS, BIND, SYNC, Api, fresh_request
from tests.e2e.wallet import result
from tests.scenarios.system import System, changed, held, lose, reused

REJECTIONS = {
    "USER_NOT_EXIST": rejected(StatusCode.NOT_FOUND),
    "PROCESS_FAIL": rejected(StatusCode.FAILED_PRECONDITION, "never"),
    "NEVER_HEARD_OF": rejected(StatusCode.FAILED_PRECONDITION),
}
GATEWAY_REFUSED = Expected(StatusCode.INTERNAL, "GATEWAY_REFUSED", "rejected", "operator")


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_success_is_replayed_unchanged(system: System, api: Api) -> None:
    request = fresh_request(api)
    first = await system.ok(api, request)
    again = await system.ok(api, request, replayed=True)
    again.replayed = False
    assert again == first
    assert system.sent(request) == 1


@pytest.mark.parametrize("code", REJECTIONS)
@pytest.mark.parametrize("api", APIS, ids=str)
async def test_rejection_is_replayed_unchanged(system: System, api: Api, code: str) -> None:
    system.upstream.script = system.wallet.says(result("F", code, "the reason"))
    request = fresh_request(api)
    first = await system.reported(api, request, REJECTIONS[code])
    system.upstream.script = system.wallet.says()
    again = await system.reported(api, request, REJECTIONS[code], replayed=True)
    assert system.sent(request) == 1
    names = ("result_status", "result_code", "result_message", "http_status")
    assert [again.metadata[name] for name in names] == [first.metadata[name] for name in names]
    assert again.metadata["result_message"] == "the reason"


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_refusal_for_a_configuration_fault_is_not_final(system: System, api: Api) -> None:
    request = fresh_request(api)
    for count in (1, 2):
        system.upstream.script = system.wallet.says(result("F", "INVALID_SIGNATURE"))
        await system.reported(api, request, GATEWAY_REFUSED)
        assert system.sent(request) == count
    await system.reported(api, changed(api, request), reused(api, had_no_effect=True))
    system.upstream.script = system.wallet.says()
    await system.ok(api, request)
    await system.ok(api, request, replayed=True)
    assert system.sent(request) == 3


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_result_after_the_caller_cancelled_is_recorded_and_replayed(system: System, api: Api) -> None:
    request = fresh_request(api)
    async with held(system, api, request) as first:
        first.calling.cancel()
        await system.gateway.cancel_logged(request.request_id)
        first.until.set()
        # The same call joins the attempt or gets the recorded outcome.
        assert (await system.call(api, request)).result.status == "S"
    await system.ok(api, request, replayed=True)
    assert system.sent(request) == 1


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_64_concurrent_calls_with_one_id_are_sent_once(system: System, api: Api) -> None:
    request = fresh_request(api)
    async with held(system, api, request) as first:
        others = [asyncio.create_task(system.ok(api, request)) for _ in range(63)]
        await system.until_open(api, 64)
        response = await first.release()
        assert [other for other in await asyncio.gather(*others) if other != response] == []
    assert system.sent(request) == 1


OTHER_CONTENT = {
    SYNC: {"user_id": "2160000000000777", "external_binding_id": "binding-777", "binding_target": "777"},
    BIND: {"user_id": "2160000000000777", "extend_info": '{"channel": "777"}', "account_id": "777"},
}


@pytest.mark.parametrize("state", ["applied", "rejected", "in doubt", "in progress"])
@pytest.mark.parametrize("api", APIS, ids=str)
async def test_other_content_with_a_used_id_is_never_sent(system: System, api: Api, state: str) -> None:
    request, expected = fresh_request(api), reused(api, had_no_effect=state == "rejected")

    async def refused() -> None:
        for name, value in OTHER_CONTENT[api].items():
            other = changed(api, request, {name: value})
            reported = await system.reported(api, other, expected)
            assert "777" not in str(reported.status)
        moved = changed(api, request)
        moved.CopyFrom(request)
        moment = moved.biz_time if api is SYNC else moved.timestamp
        moment.seconds += 1
        await system.reported(api, moved, expected)
        assert system.sent(request) == 1

    if state == "in progress":
        async with held(system, api, request) as first:
            await refused()
            assert (await first.release()).result.status == "S"
        return
    if state == "rejected":
        system.upstream.script = system.wallet.says(result("F", "PARAM_ILLEGAL"))
    await (lose if state == "in doubt" else System.call)(system, api, request)
    await refused()
