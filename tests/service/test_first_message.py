"""The message of a call is read to the end, also if its caller has cancelled the call."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from service.server.first_message import FirstMessage
from tests.service.fakes import Details


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


async def started(context: Reading, served: list[object]) -> asyncio.Task[object]:
    """Start a call and wait until its message is read."""

    async def serve(request: object, _: object) -> str:
        served.append(request)
        return "response"

    async def continuation(_: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(serve)

    handler = await FirstMessage().intercept_service(continuation, Details("/x/y"))
    call: asyncio.Task[object] = asyncio.ensure_future(handler.stream_unary(None, context))
    await context.began.wait()
    return call


async def test_a_call_is_served_with_its_message() -> None:
    context, served = Reading(), list[object]()
    call = await started(context, served)
    context.arrived.set()
    assert await call == "response"
    assert served == ["message"]


@pytest.mark.parametrize("failure", [None, grpc.aio.InternalError("x")], ids=["message", "failure"])
async def test_a_read_is_not_cancelled_with_its_call_because_grpc_would_leak_memory(
    failure: Exception | None,
) -> None:
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    context, served = Reading(failure), list[object]()
    call = await started(context, served)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    context.arrived.set()
    await asyncio.sleep(0.01)
    assert context.ended == "complete"
    assert (served, logged) == ([], [])
