"""What stops a gateway process, and what gives it other settings: signals, its files, or its supervisor.

A worker's standard input is one end of a socket pair. Through it the supervisor passes settings, as files
in memory, so that no key is written to a disk, and the worker writes heartbeats. The system closes the
other end when the supervisor exits for any reason.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, cast

from .config.reload import Reload, Reloader
from .telemetry.metrics_file import keep_metrics_shared

BEAT_EVERY_S: Final = 1.0
"""Time between two heartbeats of a worker to its supervisor."""
_MARK: Final = b"."

Use = Callable[[Reload], None]
"""Called in any thread."""


def hangup_stops() -> bool:
    """Return whether SIGHUP means that the terminal was closed; else it asks for a reload."""
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:  # standard input was closed
        return False


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a gateway."""
    stopping = [signal.SIGTERM, signal.SIGINT]
    if hangup_stops() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        stopping.append(signal.SIGHUP)
    return stopping


def stop_event(use: Use, *, shared: bool) -> asyncio.Event:
    """Return an event that is set when the gateway must stop; follow the supervisor of a `shared` one."""
    stopping = asyncio.Event()
    for number in stop_signals():
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    if shared:
        _follow_supervisor(use, stopping)
    return stopping


@asynccontextmanager
async def reloading(reloader: Reloader | None, use: Use) -> AsyncIterator[None]:
    """Use other settings when their files change, every RELOAD_EVERY_S, and at SIGHUP."""
    if reloader is None:
        yield
        return
    asked = asyncio.Event()
    if not hangup_stops():
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    watching = asyncio.create_task(_watch(reloader, asked, use))
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def _watch(reloader: Reloader, asked: asyncio.Event, use: Use) -> None:
    every_s = reloader.current.settings.reload_every_s
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(every_s or None):
                await asked.wait()
        is_asked = asked.is_set()
        asked.clear()
        # A thread, because a disk can hang; `serve` does not wait for it at the end.
        await asyncio.to_thread(reloader.look, use, asked=is_asked)


def packed(reload: Reload) -> int:
    """Return the descriptor of a new file in memory, for `send`."""
    descriptor = os.memfd_create("settings")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        pickle.dump(reload, file)
    return descriptor


def send(worker: socket.socket, descriptor: int) -> None:
    """Pass a file in memory to a worker; raise OSError if it has exited."""
    socket.send_fds(worker, [_MARK], [descriptor])


def receive() -> Reload | None:
    """Wait for the next settings from the supervisor of this worker; return None if it has exited."""
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as supervisor:
        try:
            _, descriptors, _, _ = socket.recv_fds(supervisor, len(_MARK), 1)
        except ConnectionError:  # it exited without reading our heartbeats
            return None
    if not descriptors:
        return None
    with os.fdopen(descriptors[0], "rb") as file:
        # The position of the file is shared with the other workers, which read it at the same time.
        data = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
    return cast("Reload", pickle.loads(data))  # noqa: S301  (our supervisor has written it)


def _follow_supervisor(use: Use, stopping: asyncio.Event) -> None:
    """Use the settings that the supervisor passes, and stop this worker when it exits.

    Nothing else would stop the worker, and it would share the port with the next supervisor's workers.
    """
    loop, pipe = asyncio.get_running_loop(), sys.stdin.fileno()

    def readable() -> None:
        if reload := receive():
            use(reload)
        else:
            loop.remove_reader(pipe)
            stopping.set()

    loop.add_reader(pipe, readable)


def beat() -> None:
    """Write heartbeats to the supervisor while the event loop runs; it kills a worker that sends none.

    Also write the metrics again if their files were removed.
    """
    keep_metrics_shared()
    pipe = sys.stdin.fileno()
    os.set_blocking(pipe, False)  # a supervisor that was stopped does not read
    with suppress(OSError):
        os.write(pipe, b".")
    asyncio.get_running_loop().call_later(BEAT_EVERY_S, beat)
