"""SIGTERM: the gateway is not ready, serves calls for DRAIN_DELAY_S, refuses later ones and loses none."""

from __future__ import annotations

import asyncio
import signal
import time

from grpc import StatusCode

from tests.e2e import caller
from tests.e2e.caller import doubt, not_sent
from tests.e2e.conftest import Run
from tests.e2e.gateway import get
from tests.e2e.operations import NOT_SERVING, SERVING, health, watching
from tests.e2e.samples import APIS, SERVICE, SYNC, fresh_request
from tests.e2e.test_load import held
from tests.e2e.upstream import Upstream, hangs
from tests.e2e.wallet import Wallet

TIMED_OUT = doubt("UPSTREAM_TIMEOUT", idempotent=True, code=StatusCode.DEADLINE_EXCEEDED)
SHUTTING_DOWN = not_sent(StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_shutdown_loses_no_call(run: Run, upstream: Upstream, wallet: Wallet) -> None:
    async with (
        run({"DRAIN_DELAY_S": "5", "UPSTREAM_TIMEOUT_S": "20"}) as gateway,
        watching(gateway.channel) as readiness,
        watching(gateway.channel, SERVICE) as service,
        held(gateway.channel, SYNC, upstream, wallet) as first,
    ):
        assert (await anext(readiness), await anext(service)) == (SERVING, SERVING)
        assert (await get(gateway.admin, "/readyz"))[0] == 200
        gateway.terminate()
        terminated = time.monotonic()
        assert (await anext(readiness), await anext(service)) == (NOT_SERVING, NOT_SERVING)
        draining = time.monotonic()
        assert draining - terminated < 5
        assert await health(gateway.channel, "liveness") == SERVING
        assert (await get(gateway.admin, "/readyz"))[0] == 503
        assert (await get(gateway.admin, "/livez"))[0] == 200

        upstream.script, script = wallet.says(), upstream.script
        await caller.accepted(gateway.channel, SYNC, fresh_request(SYNC))
        upstream.script = script
        await asyncio.sleep(max(0, draining + 5.2 - time.monotonic()))
        for other in APIS:
            await caller.refused(gateway.channel, other, other.request(), SHUTTING_DOWN)
        assert len(upstream.requests) == 2

        result = await first.release()
        assert result.result.status == "S"
        assert await gateway.ended() == 0
    assert gateway.records[-1]["event"] == "shutdown finished"


async def test_attempt_of_a_disconnected_caller_is_finished_before_exit(
    run: Run, upstream: Upstream, wallet: Wallet
) -> None:
    async with run() as gateway, held(gateway.channel, SYNC, upstream, wallet) as first:
        first.calling.cancel()
        await gateway.logged(lambda record: record.get("code") == "CANCELLED")
        gateway.terminate()
        await gateway.logged(lambda record: record["event"] == "shutdown started")
        first.until.set()
        assert await gateway.ended() == 0
    ends = [record["end"] for record in gateway.records if record["event"] == "attempt"]
    assert ends == ["success"]


async def test_attempt_gets_its_whole_timeout_even_with_a_short_stop_grace(
    run: Run, upstream: Upstream
) -> None:
    upstream.script = hangs
    async with run({"STOP_GRACE_S": "0", "UPSTREAM_TIMEOUT_S": "1.5"}) as gateway:
        calling = asyncio.create_task(caller.call(gateway.channel, SYNC, SYNC.request()))
        await upstream.wait_for_request()
        began = time.monotonic()
        gateway.terminate()
        assert await gateway.ended() == 0
        assert time.monotonic() - began < 8
        caller.check(await calling, TIMED_OUT)
    ends = [record["end"] for record in gateway.records if record["event"] == "attempt"]
    assert ends == ["Timeout"]


async def test_idle_gateway_stops_immediately(run: Run) -> None:
    async with run() as gateway:
        gateway.process.send_signal(signal.SIGINT)
        assert await gateway.ended() == 0
    assert gateway.err == []
    assert gateway.records[-1]["event"] == "shutdown finished"


async def test_gateway_under_nohup_reloads_at_the_end_of_its_terminal(run: Run) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; the child process inherits it
    try:
        async with run() as gateway:
            gateway.process.send_signal(signal.SIGHUP)
            await gateway.logged(lambda record: record["event"] == "configuration unchanged")
            assert await health(gateway.channel) == SERVING
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_second_signal_does_not_abort_the_shutdown(
    run: Run, upstream: Upstream, wallet: Wallet
) -> None:
    async with run() as gateway, held(gateway.channel, SYNC, upstream, wallet) as first:
        for _ in range(2):
            gateway.terminate()
            await gateway.logged(lambda record: record["event"] == "shutdown started")
        assert (await first.release()).result.status == "S"
        assert await gateway.ended() == 0
