"""Deadlines of callers, of the gateway and of attempts; and callers that leave before the result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from grpc import StatusCode

from tests.e2e import caller
from tests.e2e.caller import Expected, not_sent
from tests.e2e.conftest import Rpc, Run
from tests.e2e.gateway import WAIT_MAX_S, Gateway
from tests.e2e.upstream import Peer, Request, Script, hangs

TOO_SHORT = not_sent(StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def short_deadlines(run: Run) -> AsyncIterator[Gateway]:
    """Return a gateway with a default deadline of 0.5 s and a maximum of 3 s; an attempt may take 10 s."""
    settings = {"DEFAULT_DEADLINE_S": "0.5", "DEADLINE_MAX_S": "3", "UPSTREAM_TIMEOUT_S": "10"}
    async with run(settings) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def short_attempts(run: Run) -> AsyncIterator[Gateway]:
    """Return a gateway with a timeout of 1 s for an attempt and a default deadline of 3 s."""
    async with run({"UPSTREAM_TIMEOUT_S": "1", "DEFAULT_DEADLINE_S": "3"}) as gateway:
        yield gateway


def timeout_of(rpc: Rpc) -> Expected:
    """Expect that the deadline expired before AlipayHK responded."""
    return rpc.doubt("UPSTREAM_TIMEOUT", code=StatusCode.DEADLINE_EXCEEDED)


async def timed_out(rpc: Rpc, gateway: Gateway, *, timeout_s: float | None) -> float:
    """Call while AlipayHK hangs, until the deadline expires; return the duration in seconds."""
    began, expected = time.monotonic(), timeout_of(rpc)
    rpc.upstream.script = hangs
    request = rpc.api.request()
    reported = await caller.refused(gateway.channel, rpc.api, request, expected, timeout_s=timeout_s)
    took_s = time.monotonic() - began
    assert reported.metadata["attempts"] == "1"
    rpc.check_sent(request)
    return took_s


async def test_timeout_is_reported_with_details_before_the_callers_deadline(rpc: Rpc) -> None:
    request = rpc.api.request()
    reported = await rpc.refused(hangs, timeout_of(rpc), request, timeout_s=2.0)
    assert reported.metadata["attempts"] == "1"
    assert (await rpc.gateway.call_logged(request.request_id))["seconds"] > 1.0


async def test_attempt_has_its_own_timeout(either: Rpc, short_attempts: Gateway) -> None:
    """It expires before the call's deadline; an idempotent request is resent in the remaining time."""
    either.upstream.script, request, expected = hangs, either.api.request(), timeout_of(either)
    began = time.monotonic()
    reported = await caller.refused(short_attempts.channel, either.api, request, expected, timeout_s=None)
    took_s = time.monotonic() - began
    assert 0.9 < (await short_attempts.attempt_logged(request.request_id))["seconds"] < 2.9
    attempts = int(reported.metadata["attempts"])
    await either.upstream.wait_for_request(attempts)
    assert 2 <= attempts <= 3 if either.idempotent else (attempts == 1 and took_s < 2.9)
    either.check_sent(request, attempts)


async def test_call_without_a_deadline_gets_the_default_one(either: Rpc, short_deadlines: Gateway) -> None:
    assert 0.4 < await timed_out(either, short_deadlines, timeout_s=None) < 2.9


async def test_long_deadline_is_cut_to_the_maximum(either: Rpc, short_deadlines: Gateway) -> None:
    assert 2.9 < await timed_out(either, short_deadlines, timeout_s=60) < 9.9


@pytest.mark.parametrize("timeout_s", [0.03, 0.09])
async def test_too_short_deadline_is_refused_immediately_and_nothing_is_sent(
    rpc: Rpc, timeout_s: float
) -> None:
    async with asyncio.timeout(WAIT_MAX_S):
        while True:
            request = rpc.api.request()
            reported = await caller.call(rpc.gateway.channel, rpc.api, request, timeout_s=timeout_s)
            if not reported.is_late:
                break
    caller.check(reported, TOO_SHORT, request)
    assert rpc.upstream.requests == []


def held(rpc: Rpc, until: asyncio.Event) -> Script:
    """Return a script that waits for the event and then responds correctly."""

    async def script(request: Request, peer: Peer) -> None:
        await until.wait()
        await peer.send(rpc.wallet.right(request).wire())

    return script


async def test_cancelled_call_does_not_abort_its_attempt(rpc: Rpc) -> None:
    until, request = asyncio.Event(), rpc.api.request()
    rpc.upstream.script = held(rpc, until)
    calling = asyncio.create_task(caller.call(rpc.gateway.channel, rpc.api, request))
    await rpc.upstream.wait_for_request()
    calling.cancel()
    await rpc.gateway.cancel_logged(request.request_id)
    until.set()
    record = await rpc.gateway.attempt_logged(request.request_id)
    assert record["end"] == "success"
    rpc.check_sent(request)


async def test_expired_deadline_does_not_abort_the_attempt(rpc: Rpc) -> None:
    until, request = asyncio.Event(), rpc.api.request()
    await rpc.refused(held(rpc, until), timeout_of(rpc), request, timeout_s=1.4)
    until.set()
    assert (await rpc.gateway.attempt_logged(request.request_id))["end"] == "success"
    call = await rpc.gateway.call_logged(request.request_id)
    assert (call["reason"], call["outcome"]) == ("UPSTREAM_TIMEOUT", "unknown")
    rpc.check_sent(request)


async def test_broken_channel_does_not_abort_the_attempt(either: Rpc) -> None:
    until, request = asyncio.Event(), either.api.request()
    either.upstream.script = held(either, until)
    async with grpc.aio.insecure_channel(either.gateway.address) as channel:
        calling = asyncio.create_task(caller.call(channel, either.api, request))
        await either.upstream.wait_for_request()
        await channel.close()
    await asyncio.wait({calling})
    until.set()
    assert (await either.gateway.attempt_logged(request.request_id))["end"] == "success"
