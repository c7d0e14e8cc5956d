"""Show what the gateway spends its time on under load: `python -m bench.profiling`.

The loader saturates the gateway while py-spy samples it. The CPU time of the event loop's thread, as the
kernel counts it, is divided by the samples: a sample counts for the package of its innermost frame that is
in `STAGES`, so the standard library counts for its caller. The flame graph shows every thread.

`--results` writes the graph and the budget to `bench/results/`, and the budget to `docs/performance.md`.
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

from bench.machine import core, thread_cpu_us
from bench.subjects import BUILT, SUBJECTS, World
from bench.tables import PAGE, RESULTS, quoted, table

PY_SPY: Final = Path(sys.executable).parent / "py-spy"
STAGES: Final = {
    "clients/alipayhk/wire/crypto": "RSA and AES",
    "clients/alipayhk/wire/": "writing and reading AlipayHK's messages",
    "clients/alipayhk/": "the connection to AlipayHK, and the check of its responses",
    "aiohttp/": "aiohttp",
    "service/server/": "admission, authorization, validation, access log",
    "service/delivery/": "delivery",
    "service/ledger/": "ledger: hashes, encryption, waiting for its thread",
    "service/outcomes/": "outcomes",
    "service/telemetry/": "log and metrics",
    "prometheus_client/": "log and metrics",
    "structlog/": "log and metrics",
    "google/": "protobuf",
    "grpc/": "gRPC's Python code",
}
"""Parts of the paths of source files, and what they do."""
LOOP: Final = "asyncio, and gRPC's Cython code"
OTHERS: Final = "other threads: gRPC's, and the ledger's"
IN_LOOP: Final = "(asyncio/runners.py"
"""The last frame before the event loop, in the stacks of its thread."""


def shares(stacks: Iterable[str]) -> dict[str, float]:
    """Return the share of each stage in the samples of the event loop's thread.

    A stack is a line of py-spy: frames from the outermost one, with semicolons between them, and a count.
    """
    counts: Counter[str] = Counter()
    for stack in stacks:
        frames, _, count = stack.rpartition(" ")
        _, in_loop, inner = frames.rpartition(IN_LOOP)
        if not in_loop:
            continue
        found = (STAGES[part] for frame in reversed(inner.split(";")) for part in STAGES if part in frame)
        counts[next(found, LOOP)] += int(count)
    return {stage: count / counts.total() for stage, count in counts.items()}


def budget(world: World, name: str, seconds: int) -> dict[str, float]:
    """Return the CPU time of each stage of a call of a subject, in microseconds; write its flame graph."""
    subject = next(subject for subject in SUBJECTS if subject.name == name)
    graph, samples = (BUILT / f"profile-{name}.{suffix}" for suffix in ("svg", "txt"))
    with world.serving(subject) as server, ThreadPoolExecutor() as threads:
        pid = server.process.process.pid
        # The loader warms up for a third of its measured time.
        load = threads.submit(world.load, server, subject, 3 * seconds)
        for file, form in ((graph, "flamegraph"), (samples, "raw")):
            words = ("--format", form, "--output", file, "--duration", str(seconds), "--pid", str(pid))
            before = thread_cpu_us(pid)
            with core(1):
                subprocess.run((PY_SPY, "record", *words), check=True)  # noqa: S603
            used = {thread: us - before.get(thread, 0) for thread, us in thread_cpu_us(pid).items()}
        report = load.result()
    of_loop, whole = used.pop(pid), sum(used.values())
    per_call = report["cpu_us"] / (of_loop + whole)
    stages = {
        stage: share * of_loop * per_call
        for stage, share in shares(samples.read_text("utf-8").splitlines()).items()
    }
    return stages | {OTHERS: whole * per_call}


def markdown(budgets: dict[str, dict[str, float]]) -> str:
    """Return the budgets as a table with a column for each subject."""
    most = {
        stage: max(of.get(stage, 0) for of in budgets.values())
        for stage in (*STAGES.values(), LOOP, OTHERS)
    }
    stages = [stage for stage in sorted(most, key=most.__getitem__, reverse=True) if most[stage] >= 1]
    rows = [(stage, *(f"{of.get(stage, 0):.0f}" for of in budgets.values())) for stage in stages]
    rows.append(("**sum**", *(f"{sum(of.values()):.0f}" for of in budgets.values())))
    return table(("CPU µs per call", *(f"`{name}`" for name in budgets)), rows) + "\n"


def main() -> None:
    """Profile some subjects."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    ours = {subject.name: subject for subject in SUBJECTS if subject.ledger}
    parser.add_argument("--subject", choices=ours, nargs="+", default=["off", "sqlite"])
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument(
        "--results", action="store_true", help="keep the results, and quote them in the docs"
    )
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=BUILT) as directory,
        closing(World(Path(directory))) as world,
        world.answering(),
    ):
        budgets = {name: budget(world, name, args.seconds) for name in args.subject}
    text = markdown(budgets)
    print(f"{text}\nThe flame graphs are {BUILT}/profile-*.svg, the samples profile-*.txt.")
    if args.results:
        for name in args.subject:
            (BUILT / f"profile-{name}.svg").replace(RESULTS.with_name(f"profile-{name}.svg"))
        PAGE.write_text(quoted(PAGE.read_text("utf-8"), text, "budget"), "utf-8")


if __name__ == "__main__":
    main()
