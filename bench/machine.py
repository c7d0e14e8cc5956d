"""The machine under the measurements: its cores, its processes and what a reader must know about it."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

LIBRARIES: Final = ("grpcio", "aiohttp", "cryptography", "protobuf", "uvloop", "orjson")


ALL_CORES: Final = tuple(sorted(os.sched_getaffinity(0)))


@contextmanager
def core(number: int | None) -> Iterator[None]:
    """Run the processes that are started inside the block on one core; on all of them for None."""
    before = os.sched_getaffinity(0)
    chosen = ALL_CORES if number is None else (ALL_CORES[number % len(ALL_CORES)],)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tree(pid: int) -> list[int]:
    """Return a process and the processes that it started."""
    children = (int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split())
    return [pid, *(one for child in children for one in tree(child))]


def thread_cpu_us(pid: int) -> dict[int, float]:
    """Return the CPU time of each thread of a process, in microseconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int(task.name): int((task / "schedstat").read_text("ascii").split()[0]) / 1e3 for task in tasks}


def resident_mib(pid: int) -> float:
    """Return the memory of a process and of those that it started, in MiB.

    A page that several processes share counts in part for each of them.
    """
    texts = (Path(f"/proc/{each}/smaps_rollup").read_text("utf-8") for each in tree(pid))
    return sum(int(found[1]) for text in texts if (found := re.search(r"Pss:\s+(\d+)", text))) / 1024


def fsync_ms(directory: Path) -> float:
    """Return the median duration of a write of 4 KiB with fsync."""
    file, times = directory / "fsync", []
    with file.open("wb", buffering=0) as target:
        for _ in range(50):
            target.write(bytes(4096))
            start = time.perf_counter()
            os.fsync(target.fileno())
            times.append(time.perf_counter() - start)
    file.unlink()
    return statistics.median(times) * 1e3


def facts(directory: Path) -> dict[str, str]:
    """Return what the figures depend on: the machine, and the versions of what was measured."""
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    programs = {"Go": ("go", "env", "GOVERSION"), "Node": ("node", "--version")}
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "CPU": f"{models[0] if models else platform.machine()}, {len(ALL_CORES)} cores",
        "kernel": platform.release(),
        "fsync": f"{fsync_ms(directory):.2f} ms",
        "Python": sys.version.split()[0],
        **{library: metadata.version(library) for library in LIBRARIES},
        **{name: _output(*command) for name, command in programs.items()},
    }


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
