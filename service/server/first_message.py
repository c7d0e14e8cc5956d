"""Read the message of each unary call here, because grpc.aio never answers a call without a message.

grpc.aio reads the single message of a unary call itself. If the stream closes without a message (END_STREAM
on HEADERS), grpc.aio never sends a status; if the stream stays open without a message, grpc.aio waits as
long as the connection is open. So each unary call is registered as one that streams its request. This
module then waits a limited time for the message, and returns `Undecodable` instead of a missing one, so
that the caller gets INVALID_ARGUMENT.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Final

import grpc

from ..outcomes.call import Undecodable
from ..waiting import Deadlines
from .methods import Context

MESSAGE_S: Final = 10.0
"""Maximum wait for the message of a call with a later deadline."""
CANCEL_S: Final = 0.05
"""Delay after which gRPC has cancelled a call whose message it rejected itself, such as a too large one."""


class FirstMessage:
    """Reads the messages of a server's calls."""

    def __init__(self) -> None:
        self._deadlines = Deadlines()

    async def read(self, context: Context) -> object:
        """Return the message of a call, or Undecodable; raise what gRPC raises."""
        read = _Read(context.read())
        if read.waits_for is not None:
            read.waiter = self._deadlines.future(time.monotonic() + MESSAGE_S)
            await read.waiter
            if read.waits_for is not None:
                return Undecodable()
        if read.failure is not None:
            raise read.failure
        if read.message is not grpc.aio.EOF:
            return read.message
        # If gRPC itself closed the call, it cancels this task now, and the caller already has a status.
        await asyncio.sleep(CANCEL_S)
        return Undecodable()


class _Read:
    """Runs gRPC's `read` to its end, also if the call is cancelled.

    gRPC leaks memory if a read is cancelled (docs/upstream-bugs.md). It completes when the call ends. A
    task would do the same with four more callbacks of the event loop, so this makes the steps of the
    coroutine itself. They wait for futures of the loop only.
    """

    __slots__ = ("_steps", "failure", "message", "waiter", "waits_for")

    def __init__(self, steps: Coroutine[asyncio.Future[object], None, object]) -> None:
        self._steps = steps
        self.message: object = None
        self.failure: BaseException | None = None
        self.waits_for: asyncio.Future[object] | None = None
        """What gRPC's coroutine waits for; None if it has ended."""
        self.waiter: asyncio.Future[None] | None = None
        """What the call waits for."""
        self._step()

    def wake(self) -> None:
        """End the call's wait."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def _step(self, _: object = None) -> None:
        try:
            self.waits_for = self._steps.send(None)
            self.waits_for.add_done_callback(self._step)
            return
        except StopIteration as end:
            self.message = end.value
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  (the call raises it)
            self.failure = error
        self.waits_for = None
        self.wake()
