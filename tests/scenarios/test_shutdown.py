"""SIGTERM with a ledger: sent requests are finished and recorded, and the next gateway knows them."""

from __future__ import annotations

import asyncio
import time

import pytest
from grpc import StatusCode

from tests.e2e.caller import check, doubt
from tests.e2e.samples import APIS, BIND, fresh_request
from tests.e2e.upstream import Peer, Request, hangs
from tests.e2e.wallet import Wallet
from tests.scenarios.conftest import RunSystem
from tests.scenarios.replica_load import NOT_ACCEPTED, PATIENT_S, Load
from tests.scenarios.system import IN_DOUBT

ANSWERS_AFTER_S = 0.3
"""Some calls are in flight when the gateway is stopped."""


async def test_request_without_a_response_is_in_doubt_for_the_next_gateway(run_system: RunSystem) -> None:
    request = fresh_request(BIND)
    async with run_system() as system:
        system.upstream.script = hangs
        calling = asyncio.create_task(system.call(BIND, request))
        await system.upstream.wait_for_request()
        system.gateway.terminate()
        began = time.monotonic()
        assert await system.gateway.ended() == 0
        assert time.monotonic() - began < 5
        timed_out = doubt("UPSTREAM_TIMEOUT", idempotent=False, code=StatusCode.DEADLINE_EXCEEDED)
        check(await calling, timed_out, request)
    async with run_system() as system:
        system.upstream.script = system.wallet.says()
        await system.reported(BIND, request, IN_DOUBT)
        assert system.sent(request) == 1


async def test_attempts_of_disconnected_callers_are_all_recorded(run_system: RunSystem) -> None:
    requests = [(api, fresh_request(api)) for api in APIS for _ in range(5)]
    until = asyncio.Event()
    async with run_system({"UPSTREAM_TIMEOUT_S": "4"}) as system:
        right = system.upstream.script

        async def script(request: object, peer: object) -> None:
            await until.wait()
            await right(request, peer)  # type: ignore[arg-type]

        system.upstream.script = script
        calls = [asyncio.create_task(system.call(api, request)) for api, request in requests]
        await system.upstream.wait_for_request(len(requests))
        for calling in calls:
            calling.cancel()
        system.gateway.terminate()
        await system.gateway.logged(lambda line: line["event"] == "shutdown started")
        until.set()
        assert await system.gateway.ended() == 0
    async with run_system() as system:
        for api, request in requests:
            await system.ok(api, request, replayed=True)
            assert system.sent(request) == 1


@pytest.mark.parametrize("times", [2, pytest.param(100, marks=pytest.mark.full)])
async def test_no_accepted_call_fails_when_the_gateway_is_stopped_under_load(
    run_system: RunSystem, times: int
) -> None:
    load = Load([], PATIENT_S)
    for _ in range(times):
        async with run_system({"UPSTREAM_TIMEOUT_S": "4"}) as system:

            async def slow(request: Request, peer: Peer, wallet: Wallet = system.wallet) -> None:
                await asyncio.sleep(ANSWERS_AFTER_S)
                await peer.send(wallet.right(request).wire())

            system.upstream.script, load.systems = slow, [system]
            async with load.running():
                await load.until_ok()
                system.gateway.terminate()
                assert await system.gateway.ended() == 0
    load.check()
    received = load.received()
    assert load.reasons().keys() - NOT_ACCEPTED == {"OK"}
    assert load.reasons().keys() & NOT_ACCEPTED
    assert {received[made.request.request_id] for made in load.made if made.reason != "OK"} == {0}
    async with run_system({"UPSTREAM_TIMEOUT_S": "4"}) as system:
        system.upstream.script = system.wallet.says()
        await load.check_again(system)
