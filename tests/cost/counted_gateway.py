"""Run the gateway, and count its work between two SIGUSR1: `python -m tests.cost.counted_gateway REPORT`.

The counts hardly depend on the machine, unlike seconds. SIGUSR1 starts the counting, and the next one
writes the counts to REPORT, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import prometheus_client.metrics
from google.protobuf.message import Message

from service.commands.cli import main
from service.server.linkage_service import LinkageService
from service.server.rpcs import Rpc

counts: Counter[str] = Counter()
is_counting = False
EVENT_LOOP: Final = (str(Path(asyncio.__file__).parent), selectors.__file__)
"""The files of the event loop. It makes more calls on a busy machine, where each pass has less to do."""
WHERE: Final = os.environ.get("COST_WHERE")
"""If set, the calls of each function are reported too."""


def count_call(frame: FrameType, event: str, function: object) -> None:
    """Count the calls of Python's and C's functions, as cProfile does."""
    if not is_counting or event not in {"call", "c_call"} or frame.f_code.co_filename == __file__:
        return
    counts["calls"] += 1
    if not frame.f_code.co_filename.startswith(EVENT_LOOP):
        counts["calls outside the event loop"] += 1
    if WHERE:
        code = frame.f_code
        name = f"{code.co_filename}:{code.co_firstlineno} {code.co_name}"
        if event == "c_call":
            name = f"C {getattr(function, '__qualname__', function)} < {name}"
        counts[name] += 1


def counted(owner: Any, method: str, name: str) -> None:
    """Count the calls of a method."""
    original: Callable[..., Any] = getattr(owner, method)

    def call(self: Any, *arguments: Any, **more: Any) -> Any:
        if is_counting:
            counts[name] += 1
        return original(self, *arguments, **more)

    setattr(owner, method, call)


def add_work(extra: str) -> None:
    """Let each request do something more, to test that it is noticed."""
    unary = LinkageService.unary
    counter = prometheus_client.Counter("extra", "Extra.", ("name",), registry=None)

    async def with_more(self: LinkageService, rpc: Rpc, request: Message, _: object = None) -> Message:
        if extra == "labels":
            counter.labels("name").inc()
        elif extra == "task":
            await asyncio.create_task(asyncio.sleep(0))
        return await unary(self, rpc, request)

    LinkageService.unary = with_more  # type: ignore[method-assign]


def toggle(report: Path) -> None:
    """Start to count, or write the counts."""
    global is_counting  # noqa: PLW0603
    is_counting = not is_counting
    if is_counting:
        counts.clear()
        return
    unfinished = report.with_suffix(".new")
    unfinished.write_text(json.dumps(counts), "utf-8")
    unfinished.rename(report)


def run(report: Path) -> int:
    """Serve."""
    counted(asyncio.BaseEventLoop, "create_task", "tasks")
    counted(asyncio.BaseEventLoop, "_run_once", "polls")
    for method in ("call_soon", "call_soon_threadsafe", "call_at"):
        counted(asyncio.BaseEventLoop, method, method)
    counted(prometheus_client.metrics.MetricWrapperBase, "labels", "labels")
    if extra := os.environ.get("COST_EXTRA"):
        add_work(extra)
    signal.signal(signal.SIGUSR1, lambda *_: toggle(report))
    threading.setprofile(count_call)
    sys.setprofile(count_call)
    return main(["serve"])


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
