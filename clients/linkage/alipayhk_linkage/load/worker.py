"""A process of the generator: it connects, reports that it is ready, and makes calls from the start time.

It exchanges the messages below with the main process, which is in `processes`.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

import grpc
import grpc.aio

from ..channel import channel_options
from .arrivals import intended_times
from .engine import Call, Engine
from .plan import Plan
from .recording import Recording, Second
from .requests import BIND, SYNC, Request
from .waiting import WaitingSelector

SERVICE: Final = "alipayhk.linkage.v1.LinkageService"
CONNECT_S: Final = 5.0
REPORT_EVERY_S: Final = 0.25
SETTLED_S: Final = 0.25
"""The delay between the end of a second and its report. All its responses are recorded by then."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Message to the main process: this process is connected."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Message to the main process: no gateway can be reached at the address."""

    target: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Message to the main process: the seconds that are complete."""

    seconds: dict[int, Second]
    in_flight: int


@dataclass(frozen=True, slots=True)
class Done:
    """Message to the main process: the rest of the recording."""

    recording: Recording


@dataclass(frozen=True, slots=True)
class Start:
    """Message from the main process: start at this time of the monotonic clock, which they share."""

    at: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Message from the main process: stop starting calls."""


class Channels:
    """The channels to the gateways. Their RPCs take and return serialised messages."""

    def __init__(self, plan: Plan) -> None:
        self._channels = {False: _channel(plan.target, plan)}
        if plan.encrypted_target:
            self._channels[True] = _channel(plan.encrypted_target, plan)
        self._targets = {False: plan.target, True: plan.encrypted_target or ""}
        self._rpcs: dict[tuple[str, bool], grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {
            (rpc, encrypted): channel.unary_unary(f"/{SERVICE}/{rpc}")
            for encrypted, channel in self._channels.items()
            for rpc in (SYNC, BIND)
        }

    async def unreachable(self) -> str | None:
        """Connect to all gateways; return the first address that cannot be reached, or None."""
        for encrypted, channel in self._channels.items():
            try:
                async with asyncio.timeout(CONNECT_S):
                    await channel.channel_ready()
            except TimeoutError:
                return self._targets[encrypted]
        return None

    def start(self, request: Request, timeout: float) -> Call:
        """Start a call with a timeout in seconds."""
        return self._rpcs[request.rpc, request.encrypted](request.body, timeout=timeout)

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()


def _channel(target: str, plan: Plan) -> grpc.aio.Channel:
    options = channel_options(plan.tls, retries=False, shared_ledger=plan.shared_ledger)
    if plan.tls is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, plan.tls.credentials(), options)


def main(pipe: Connection, plan: Plan, process: int) -> None:
    """Run a process of the generator."""
    waiting = WaitingSelector()
    loop = asyncio.SelectorEventLoop(waiting)
    asyncio.set_event_loop(loop)
    with suppress(BrokenPipeError):  # the main process has exited
        loop.run_until_complete(_run(pipe, plan, process, waiting))
    loop.close()


async def _run(pipe: Connection, plan: Plan, process: int, waiting: WaitingSelector) -> None:
    channels = Channels(plan)
    unreachable = await channels.unreachable()
    pipe.send(Ready() if unreachable is None else Unreachable(unreachable))
    recording = Recording(plan.warm_up, plan.late_after, plan.remember)
    engine = Engine(plan, process, channels, recording, lambda: waiting.waited)
    start = _listen(pipe, engine)
    if unreachable is None and (started_at := await start) is not None:
        # A full garbage collection takes milliseconds, which would count as the gateway's latency.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 1_000)
        progress = asyncio.ensure_future(_report_progress(pipe, plan, engine, recording))
        await engine.run(started_at, _times(plan, process))
        progress.cancel()
        pipe.send(Done(recording))
    asyncio.get_running_loop().remove_reader(pipe.fileno())
    await channels.close()


def _listen(pipe: Connection, engine: Engine) -> asyncio.Future[float | None]:
    """Handle the messages of the main process.

    Return a future of the start time; None means to stop before the start. If the main process sends Stop
    or exits, interrupt the engine.
    """
    loop = asyncio.get_running_loop()
    start: asyncio.Future[float | None] = loop.create_future()

    def read() -> None:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            message = Stop()
            loop.remove_reader(pipe.fileno())
        if isinstance(message, Start) and not start.done():
            start.set_result(message.at)
        elif isinstance(message, Stop):
            if not start.done():
                start.set_result(None)
            engine.interrupt()

    loop.add_reader(pipe.fileno(), read)
    return start


def _times(plan: Plan, process: int) -> Iterator[float] | None:
    if plan.profile is None:
        return None
    share = (process, plan.processes)
    return intended_times(plan.profile, poisson=plan.poisson, seed=plan.seed, share=share)


async def _report_progress(pipe: Connection, plan: Plan, engine: Engine, recording: Recording) -> None:
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        complete = int(engine.now() - SETTLED_S - plan.warm_up)
        pipe.send(Progress(recording.take(complete), engine.in_flight))
