"""A process of the generator: connects, says that it is ready, and works from the moment it is told.

What goes between it and the process that leads the run are the messages below.
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
TELL_EVERY_S: Final = 0.25
SETTLED_S: Final = 0.25
"""How long after its end a second is handed over: answers that came in it are written down by then."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The process is connected."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """There is no gateway at that address."""

    target: str


@dataclass(frozen=True, slots=True)
class Passed:
    """Seconds that are over."""

    seconds: dict[int, Second]
    in_flight: int


@dataclass(frozen=True, slots=True)
class Done:
    """All the rest."""

    recording: Recording


@dataclass(frozen=True, slots=True)
class Start:
    """Begin at that moment of the monotonic clock, which all processes share."""

    at: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Start no more calls."""


class Channels:
    """The gateways' channels, and their RPCs without (de)serialisation."""

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
        """Connect; return the address that cannot be reached."""
        for encrypted, channel in self._channels.items():
            try:
                await asyncio.wait_for(channel.channel_ready(), CONNECT_S)
            except TimeoutError:
                return self._targets[encrypted]
        return None

    def start(self, request: Request, timeout: float) -> Call:
        """Start a call."""
        return self._rpcs[request.rpc, request.encrypted](request.body, timeout=timeout)

    async def close(self) -> None:
        """Close them."""
        for channel in self._channels.values():
            await channel.close()


def _channel(target: str, plan: Plan) -> grpc.aio.Channel:
    options = channel_options(plan.tls, retries=False)
    if plan.tls is None:
        return grpc.aio.insecure_channel(target, options)
    return grpc.aio.secure_channel(target, plan.tls.credentials(), options)


def main(pipe: Connection, plan: Plan, process: int) -> None:
    """Run a process of the generator."""
    waiting = WaitingSelector()
    loop = asyncio.SelectorEventLoop(waiting)
    asyncio.set_event_loop(loop)
    with suppress(BrokenPipeError):  # nobody is left to tell
        loop.run_until_complete(_work(pipe, plan, process, waiting))
    loop.close()


async def _work(pipe: Connection, plan: Plan, process: int, waiting: WaitingSelector) -> None:
    channels = Channels(plan)
    unreachable = await channels.unreachable()
    pipe.send(Ready() if unreachable is None else Unreachable(unreachable))
    recording = Recording(plan.warm_up, plan.late_after, plan.remember)
    engine = Engine(plan, process, channels, recording, lambda: waiting.waited)
    began = _obey(pipe, engine)
    if unreachable is None and (at := await began) is not None:
        # A collection of everything is a pause of milliseconds that the gateway would be blamed for.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 1_000)
        telling = asyncio.ensure_future(_tell(pipe, plan, engine, recording))
        await engine.work(at, _times(plan, process))
        telling.cancel()
        pipe.send(Done(recording))
    asyncio.get_running_loop().remove_reader(pipe.fileno())
    await channels.close()


def _obey(pipe: Connection, engine: Engine) -> asyncio.Future[float | None]:
    """Return when to begin, None for not at all; stop the engine when told, or when nobody is left."""
    loop = asyncio.get_running_loop()
    began: asyncio.Future[float | None] = loop.create_future()

    def read() -> None:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            message = Stop()
            loop.remove_reader(pipe.fileno())
        if isinstance(message, Start) and not began.done():
            began.set_result(message.at)
        elif isinstance(message, Stop):
            if not began.done():
                began.set_result(None)
            engine.interrupt()

    loop.add_reader(pipe.fileno(), read)
    return began


def _times(plan: Plan, process: int) -> Iterator[float] | None:
    if plan.profile is None:
        return None
    share = (process, plan.processes)
    return intended_times(plan.profile, poisson=plan.poisson, seed=plan.seed, share=share)


async def _tell(pipe: Connection, plan: Plan, engine: Engine, recording: Recording) -> None:
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        passed = int(engine.now() - SETTLED_S - plan.warm_up)
        pipe.send(Passed(recording.take(passed), engine.in_flight))
