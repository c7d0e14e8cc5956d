"""Fixtures: virtual time, the log, and worlds that must not leave a request in flight."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import structlog

from service.telemetry.logs import set_up_logs
from tests.delivery.virtual_time import VirtualLoop, clock_of
from tests.delivery.world import World
from tests.service.fakes import LogStream


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test in a loop with virtual time."""
    return {"virtual": VirtualLoop}


@pytest.fixture(autouse=True)
async def clock() -> AsyncIterator[None]:
    """Let time.monotonic return the loop's time; a test that is no coroutine has a normal loop."""
    loop = asyncio.get_running_loop()
    with clock_of(loop) if isinstance(loop, VirtualLoop) else nullcontext():
        yield


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[LogStream]:
    """Write the log to memory, restore logging afterwards; fail on an illegal state transition."""
    stream, root = LogStream(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    set_up_logs("debug", stream)
    root.handlers[:] = handlers
    yield stream
    structlog.reset_defaults()
    root.setLevel(level)
    assert stream.of("illegal state transition") == []


@pytest.fixture
async def make(clock: None) -> AsyncIterator[Callable[..., World]]:
    """Return a function that makes a World; at the end nothing of it may remain."""
    worlds: list[World] = []
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def make(**changes: Any) -> World:
        worlds.append(World(**changes))
        return worlds[-1]

    yield make
    for world in worlds:
        await world.nothing_is_left()
    assert complaints == []


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    """Return a World with its default options."""
    return make()
