"""Log lines on a pipe that is not read, is read slowly, or was closed."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.telemetry import lines as module
from service.telemetry.lines import DELAY_S, Lines
from service.telemetry.logs import FrequentEvent, lines_dropped, log, set_up_logs

LINE = "x" * 999 + "\n"
PIPE_BYTES = 1 << 16


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return the descriptors of a pipe: the reader and the writer."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(writer)
    os.close(reader)


def read(reader: int, count: int) -> bytes:
    data = b""
    while data.count(b"\n") < count:
        data += os.read(reader, 1 << 20)
    return data


def test_lines_wait_for_a_slow_reader_in_their_order(pipe: tuple[int, int]) -> None:
    lines = Lines(pipe[1], lines_dropped)
    for number in range(500):
        lines.write(f"{number} {LINE}")
    got = read(pipe[0], 500).decode().splitlines()
    assert [line.split()[0] for line in got] == [str(number) for number in range(500)]
    lines.write("after\n")
    assert read(pipe[0], 1) == b"after\n"


def test_line_longer_than_the_pipe_is_written_whole(pipe: tuple[int, int]) -> None:
    lines = Lines(pipe[1], lines_dropped)
    long = "y" * (3 * PIPE_BYTES) + "\n"
    lines.write(long)
    lines.write("after\n")
    assert read(pipe[0], 2).decode() == f"{long}after\n"


def readable(reader: int) -> bytes:
    """Return what is in a pipe now."""
    return os.read(reader, 1 << 20) if select.select((reader,), (), (), 0)[0] else b""


async def test_lines_of_an_event_loop_are_written_together(pipe: tuple[int, int]) -> None:
    lines = Lines(pipe[1], lines_dropped)
    for number in range(3):
        lines.write(f"{number}\n")
    assert readable(pipe[0]) == b""
    await asyncio.sleep(3 * DELAY_S)
    assert readable(pipe[0]) == b"0\n1\n2\n"
    lines.write("later\n")
    await asyncio.sleep(3 * DELAY_S)
    assert readable(pipe[0]) == b"later\n"


async def test_a_flushed_line_follows_the_lines_before_it_at_once(pipe: tuple[int, int]) -> None:
    lines = Lines(pipe[1], lines_dropped)
    lines.write("first\n")
    lines.write("second\n")
    lines.flush()
    assert readable(pipe[0]) == b"first\nsecond\n"
    await asyncio.sleep(3 * DELAY_S)
    assert readable(pipe[0]) == b""


async def test_a_line_of_another_thread_is_written_at_once_after_those_before_it(
    pipe: tuple[int, int],
) -> None:
    lines = Lines(pipe[1], lines_dropped)
    set_up_logs("info", lines)
    FrequentEvent("call", "code").log("OK")
    assert readable(pipe[0]) == b""
    thread = threading.Thread(target=log.info, args=("call",))
    thread.start()
    thread.join()
    assert readable(pipe[0]).count(b"\n") == 2


async def test_lines_written_together_are_never_divided_by_those_of_another_process(
    pipe: tuple[int, int],
) -> None:
    lines = Lines(pipe[1], lines_dropped)
    for _ in range(9):
        lines.write(LINE)
    # The system writes at most PIPE_BUF bytes to a pipe in one piece.
    assert readable(pipe[0]) == LINE.encode() * 8
    lines.flush()
    assert readable(pipe[0]) == LINE.encode()


@pytest.mark.parametrize("end", ["close", "another event loop"])
def test_lines_of_an_event_loop_that_ended_are_not_lost(end: str, pipe: tuple[int, int]) -> None:
    async def write(text: str, pause_s: float) -> None:
        lines.write(text)
        await asyncio.sleep(pause_s)

    lines = Lines(pipe[1], lines_dropped)
    asyncio.run(write("before\n", 0))
    if end == "close":
        lines.close()
        assert readable(pipe[0]) == b"before\n"
    else:
        asyncio.run(write("after\n", 3 * DELAY_S))
        assert readable(pipe[0]) == b"before\nafter\n"


async def test_each_of_the_collected_lines_that_are_dropped_is_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES_MAX", 4 * len(LINE))
    lines = Lines(pipe[1], lines_dropped)
    os.write(pipe[1], b"x" * PIPE_BYTES)
    for _ in range(12):
        lines.write(LINE)
    lines.flush()
    got = read(pipe[0], 5)
    assert got.count(LINE.encode()) == 4
    assert b'"event": "log lines dropped", "count": 8}' in got


def test_lines_beyond_the_limit_are_dropped_and_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES_MAX", 100_000)
    lines = Lines(pipe[1], lines_dropped)
    began = time.monotonic()
    for _ in range(1_000):
        lines.write(LINE)
    assert time.monotonic() - began < 10
    data = b""
    while b"log lines dropped" not in data:
        data += os.read(pipe[0], 1 << 20)
    kept = data.count(LINE.encode())
    assert f'"event": "log lines dropped", "count": {1_000 - kept}}}'.encode() in data


def test_closed_reader_does_not_raise(pipe: tuple[int, int]) -> None:
    lines = Lines(pipe[1], lines_dropped)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, pipe[0])  # closes the reader
    os.close(null)
    for _ in range(200):
        lines.write(LINE)
    lines.close()


def test_end_of_the_process_does_not_wait_for_a_reader(pipe: tuple[int, int]) -> None:
    lines = Lines(pipe[1], lines_dropped)
    for _ in range(200):
        lines.write(LINE)
    began = time.monotonic()
    lines.close()
    assert time.monotonic() - began < 5


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")  # the stream keeps it until the end
def test_unread_socket_does_not_block() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lines = Lines(ours.fileno(), lines_dropped)
        for _ in range(2_000):
            lines.write(LINE)
        assert ours.getblocking()
        got = 0
        while got < 2_000 * len(LINE):
            got += len(theirs.recv(1 << 20))
        while (thread := lines._thread) is not None:
            thread.join()
        del lines
        gc.collect()  # now, and not in another test


def test_regular_file_is_appended_to(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("before\n")
    with file.open("a") as stdout:
        Lines(stdout.fileno(), lines_dropped).write("after\n")
    assert file.read_text() == "before\nafter\n"


def test_pipe_that_cannot_be_opened_twice_does_not_block(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(path, flags)

    monkeypatch.setattr(os, "open", refuse)
    lines = Lines(pipe[1], lines_dropped)
    monkeypatch.undo()
    writing = threading.Thread(target=lambda: deque(map(lines.write, [LINE] * 200)), daemon=True)
    writing.start()
    writing.join(20)
    assert not writing.is_alive()
    assert len(read(pipe[0], 200)) == 200 * len(LINE)


def test_closed_standard_output_is_no_error() -> None:
    code = "from service.telemetry.lines import *; Lines(standard_output(), str).write('x')"
    done = subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -c "{code}" >&-'], capture_output=True, check=False, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
