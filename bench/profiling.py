"""Show what the gateway spends its time on under load: `python -m bench.profiling [--subject NAME]`.

The loader saturates the gateway while py-spy samples it. The flame graph shows every thread. The table
shows the event loop's thread: a sample counts for the package of its innermost frame that is in `PACKAGES`,
so the standard library counts for its caller.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final

from bench.machine import core
from bench.subjects import BUILT, SUBJECTS, World

PY_SPY: Final = Path(sys.executable).parent / "py-spy"
PACKAGES: Final = (
    *("service/server/", "service/delivery/", "service/ledger/", "service/telemetry/", "service/"),
    *("clients/alipayhk/wire/crypto", "clients/alipayhk/wire/", "clients/alipayhk/"),
    *("aiohttp/", "grpc/", "structlog/", "prometheus_client/", "google/"),
)
OTHER: Final = "asyncio, and gRPC's Cython code"
LOOP: Final = "(asyncio/runners.py"
"""The last frame before the event loop, in the stacks of its thread."""


def shares(stacks: Iterable[str]) -> list[tuple[str, float]]:
    """Return the share of each package in the samples of the event loop's thread, largest first.

    A stack is a line of py-spy: frames from the outermost one, with semicolons between them, and a count.
    """
    counts: Counter[str] = Counter()
    for stack in stacks:
        frames, _, count = stack.rpartition(" ")
        _, in_loop, inner = frames.rpartition(LOOP)
        if not in_loop:
            continue
        found = (
            package for frame in reversed(inner.split(";")) for package in PACKAGES if package in frame
        )
        counts[next(found, OTHER)] += int(count)
    return [(package, count / counts.total()) for package, count in counts.most_common()]


def main() -> None:
    """Profile one subject."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    ours = {subject.name: subject for subject in SUBJECTS if subject.ledger}
    parser.add_argument("--subject", choices=ours, default="sqlite")
    parser.add_argument("--seconds", type=int, default=15)
    args = parser.parse_args()
    subject, graph, raw = ours[args.subject], BUILT / "profile.svg", BUILT / "profile.txt"
    with (
        tempfile.TemporaryDirectory(dir=BUILT) as directory,
        ThreadPoolExecutor() as threads,
        closing(World(Path(directory))) as world,
        world.answering(),
        world.serving(subject) as server,
    ):
        # The loader warms up for a third of its measured time.
        load = threads.submit(world.load, server, subject, 3 * args.seconds)
        for file, form in ((graph, "flamegraph"), (raw, "raw")):
            words = ("--format", form, "--output", file, "--duration", str(args.seconds))
            process = ("--pid", str(server.process.process.pid))
            with core(1):
                subprocess.run((PY_SPY, "record", *words, *process), check=True)  # noqa: S603
        print(f"{load.result()['rate']:.0f} calls/s under the profiler")
    for package, share in shares(raw.read_text("utf-8").splitlines()):
        print(f"{share:6.1%}  {package}")
    print(f"\n{graph}: the flame graph\n{raw}: the samples")


if __name__ == "__main__":
    main()
