"""The message of a call is read to the end, also if its caller has cancelled the call."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from service.outcomes.call import Undecodable
from service.server import first_message as module
from service.server.first_message import FirstMessage
from tests.service.fakes import turns


class Reading:
    """A call whose message arrives, or whose read fails, only when the test says so."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.began, self.arrived = asyncio.Event(), asyncio.Event()
        self.ended = ""

    async def read(self) -> str:
        self.began.set()
        try:
            await self.arrived.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "complete"
        if self.failure:
            raise self.failure
        return "message"


async def started(context: Reading) -> asyncio.Task[object]:
    """Start a call and wait until its message is read."""
    call = asyncio.create_task(FirstMessage().read(context))
    await context.began.wait()
    return call


async def test_a_message_is_returned() -> None:
    context = Reading()
    call = await started(context)
    context.arrived.set()
    assert await call == "message"


async def test_a_message_that_is_there_is_returned_at_once() -> None:
    context = Reading()
    context.arrived.set()
    assert await FirstMessage().read(context) == "message"


async def test_a_failure_of_a_read_is_raised() -> None:
    context = Reading(grpc.aio.InternalError("x"))
    call = await started(context)
    context.arrived.set()
    with pytest.raises(grpc.aio.InternalError):
        await call


async def test_calls_do_not_wait_longer_than_the_limit_for_their_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MESSAGE_S", 0.2)
    first_message, contexts = FirstMessage(), [Reading() for _ in range(4)]

    async def timed(context: Reading) -> tuple[object, float]:
        began_s = time.monotonic()
        return await first_message.read(context), time.monotonic() - began_s

    calls = []
    for context in contexts:
        calls.append(asyncio.create_task(timed(context)))
        await context.began.wait()
        if context is contexts[1]:
            context.arrived.set()
        await asyncio.sleep(0.05)
    contexts[2].failure = grpc.aio.InternalError("x")
    first, in_time, *others = [await call for call in calls]
    assert in_time[0] == "message"
    for message, took_s in (first, *others):
        assert isinstance(message, Undecodable)
        assert 0.19 < took_s < 5, "a busy machine may be late, but each call has its own limit"
    for context in contexts:
        context.arrived.set()
    await turns()
    assert [context.ended for context in contexts] == ["complete"] * 4
    assert isinstance(await first_message.read(Reading()), Undecodable)


@pytest.mark.parametrize("failure", [None, grpc.aio.InternalError("x")], ids=["message", "failure"])
async def test_a_read_is_not_cancelled_with_its_call_because_grpc_would_leak_memory(
    failure: Exception | None,
) -> None:
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    context = Reading(failure)
    call = await started(context)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    context.arrived.set()
    await turns()
    assert context.ended == "complete"
    assert logged == []
