"""Writes log lines to standard output without ever waiting for its reader.

A write to a full pipe waits for the reader. The event loop would wait, too: calls, probes and the shutdown.
So a pipe or a terminal is opened a second time, without blocking, because the flag of the
inherited description belongs to other processes, too. Lines that do not fit wait in memory, and a thread
writes them when the reader continues. Beyond a limit, lines are dropped and counted.

A system call costs more than making a line. So the lines of an event loop are collected for DELAY_S, until
one needs `flush`, or until they are as many bytes as a pipe takes from one process without those of others
in between.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

WAITING_BYTES_MAX: Final = 4 << 20
DELAY_S: Final = 0.01
"""How long lines are collected, in seconds."""
CLOSE_S: Final = 1.0
"""How long the end of the process waits for the reader, in seconds."""
_POLL_MS: Final = 200


class Lines:
    """A text stream for log lines."""

    def __init__(self, descriptor: int, report: Callable[[int], str]) -> None:
        """Write to a descriptor; `report` returns the line that says how many lines were dropped."""
        self._report = report
        self._descriptor, self._write_some = _opened(descriptor)
        self._lock = threading.Lock()
        self._collected: list[bytes] = []
        self._collected_bytes = 0
        self._flushing: asyncio.AbstractEventLoop | None = None
        """The event loop that will flush the collected lines."""
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Collect a line, or write it at once where no event loop runs."""
        line = text.encode(errors="replace")
        with self._lock:
            if self._collected_bytes + len(line) > select.PIPE_BUF:
                self._write_collected()
            self._collected.append(line)
            self._collected_bytes += len(line)
        # This is cheaper than `get_running_loop`, which asks the system for the process id.
        if self._flushing is None or not self._flushing.is_running():
            self._flush_soon()

    def flush(self) -> None:
        """Write the collected lines, or keep them until the reader continues: this never waits."""
        with self._lock:
            self._write_collected()

    def close(self) -> None:
        """Write all lines that are left; wait a short time for the reader."""
        self.flush()
        end_s = time.monotonic() + CLOSE_S
        while self._waiting and time.monotonic() < end_s:
            time.sleep(_POLL_MS / 10_000)

    def _flush_soon(self) -> None:
        try:
            self._flushing = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            self._flushing.call_later(DELAY_S, self._flush_late)

    def _flush_late(self) -> None:
        self._flushing = None
        self.flush()

    def _write_collected(self) -> None:
        if not self._collected:
            return
        lines, count = b"".join(self._collected), len(self._collected)
        self._collected.clear()
        self._collected_bytes = 0
        if self._waiting_bytes + len(lines) > WAITING_BYTES_MAX:
            self._dropped += count
            return
        rest = lines if self._waiting else self._unwritten(lines)
        if not rest:
            return
        self._put(rest)
        self._write_waiting()
        if self._waiting and self._thread is None:
            self._thread = threading.Thread(target=self._drain, name="log", daemon=True)
            self._thread.start()

    def _unwritten(self, lines: bytes) -> bytes:
        """Write what fits of some lines; return the rest."""
        try:
            return lines[self._write_some(lines) :]
        except OSError:  # the reader has closed it
            return b""

    def _put(self, line: bytes) -> None:
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def _write_waiting(self) -> None:
        try:
            while self._waiting:
                line = self._waiting.popleft()
                self._waiting_bytes -= len(line)
                written = self._write_some(line)
                if written < len(line):
                    self._waiting.appendleft(line[written:])
                    self._waiting_bytes += len(line) - written
                    return
                if self._dropped and not self._waiting:
                    dropped, self._dropped = self._dropped, 0
                    self._put(self._report(dropped).encode())
        except OSError:  # the reader has closed it
            self._waiting.clear()
            self._waiting_bytes = 0

    def _drain(self) -> None:
        """Write the waiting lines while the reader makes room; end when none waits."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        while True:
            poll.poll(_POLL_MS)
            with self._lock:
                self._write_waiting()
                if not self._waiting:
                    self._thread = None
                    return


def standard_output() -> int:
    """Return the descriptor of standard output, or of nothing if it was closed before the start."""
    return os.open(os.devnull, os.O_WRONLY) if sys.stdout is None else sys.stdout.fileno()


def _opened(descriptor: int) -> tuple[int, Callable[[bytes], int]]:
    """Return a descriptor, and a function that writes to it what fits without waiting."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        there = socket.socket(fileno=os.dup(descriptor))
        return there.fileno(), lambda line: _written(lambda: there.send(line, socket.MSG_DONTWAIT))
    if stat.S_ISFIFO(mode) or os.isatty(descriptor):
        try:
            again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return descriptor, lambda line: _written_if_ready(descriptor, line)
        return again, lambda line: _written(lambda: os.write(again, line))
    return descriptor, lambda line: os.write(descriptor, line)


def _written(write: Callable[[], int]) -> int:
    try:
        return write()
    except BlockingIOError:
        return 0


def _written_if_ready(descriptor: int, line: bytes) -> int:
    """Write at most PIPE_BUF bytes: so many fit where a pipe is ready."""
    _, ready, _ = select.select((), (descriptor,), (), 0)
    return os.write(descriptor, line[: select.PIPE_BUF]) if ready else 0
