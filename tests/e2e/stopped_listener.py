"""The gateway's command line, with a signal handler that stops the listeners without the gateway."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from contextlib import suppress
from types import FrameType

import grpc

from service.commands.cli import main

_stops: set[asyncio.Task[None]] = set()


def listeners() -> list[grpc.aio.Server]:
    """Return the servers of this process; only the gateway has references to them."""
    return [found for found in gc.get_objects() if issubclass(type(found), grpc.aio.Server)]


async def stop(server: grpc.aio.Server) -> None:
    """Stop a server without notifying the gateway."""
    with suppress(asyncio.CancelledError):
        await server.stop(None)


def stop_listeners(_: int, __: FrameType | None) -> None:
    """Stop each listener on SIGUSR1."""
    _stops.update(asyncio.get_running_loop().create_task(stop(server)) for server in listeners())


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, stop_listeners)
    sys.exit(main())
