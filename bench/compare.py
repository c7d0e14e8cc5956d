"""Compare the gateway with what a user would write instead: `python -m bench.compare [--only NAMES]`.

Each round measures every subject once: in a closed loop to saturate it, then in an open loop at half of
that rate. The subject has one core; the loader and the upstream share another one. The floor is measured in
the same rounds, so that the ratios are valid even if the speed of the machine varies.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from bench import tables
from bench.machine import core, facts
from bench.prefill import prefill
from bench.subjects import BUILT, SUBJECTS, Subject, World

LONG = next(subject for subject in SUBJECTS if subject.name == "sqlite")
ECHO = Subject("echo", "", "")


def measured(world: World, subject: Subject, seconds: float) -> dict[str, Any]:
    """Measure a subject once."""
    with world.serving(subject) as server:
        closed = world.load(server, subject, seconds)
        open_ = world.load(server, subject, seconds, rate=closed["rate"] / 2)
        return {"closed": closed, "open": open_, "mib": server.resident_mib()}


def floor(world: World, seconds: float) -> dict[str, float]:
    """Measure every part of the floor once."""
    parts = {part: world.part(part, seconds) for part in tables.PARTS if part != "echo"}
    with core(0), world.peer("echo") as server:
        return parts | {"echo": world.load(server, ECHO, seconds)["cpu_us"]}


def growth(world: World, calls: int) -> list[tuple[int, float, float]]:
    """Make so many calls; return number of calls, memory and CPU time of a call at about twenty times."""
    points: list[tuple[int, float, float]] = []
    with world.serving(LONG) as server:
        total, seconds = 0, 1.0
        while total < calls:
            total += (report := world.load(server, LONG, seconds))["calls"]
            points.append((total, server.resident_mib(), report["cpu_us"]))
            seconds = max(1.0, calls / 20 / report["rate"])
    return points


def unexpected(subject: Subject, report: dict[str, Any]) -> int:
    """Return how many calls had another status than expected."""
    failed: int = sum(count for code, count in report["errors"].items() if code != subject.expected)
    served: int = report["calls"] - sum(report["errors"].values())
    return failed + (served if subject.expected != "OK" else 0)


def selected(only: str, rows_max: int) -> list[Subject]:
    """Return the subjects with one of these names or groups; all of them without names."""
    names = set(filter(None, only.split(",")))
    known = {subject.name for subject in SUBJECTS} | {subject.group for subject in SUBJECTS}
    if names - known - {"growth"}:
        raise SystemExit(f"--only accepts {', '.join(sorted(known))}, growth")
    chosen = [subject for subject in SUBJECTS if not names or names & {subject.name, subject.group}]
    return [subject for subject in chosen if subject.rows <= rows_max]


def run(world: World, args: argparse.Namespace, document: dict[str, Any], results: Path) -> int:
    """Measure, and write the document after each round; return how many calls had an unexpected status."""
    subjects, failed = selected(args.only, args.rows_max), 0
    for subject in subjects:
        of = {"group": subject.group, "meaning": subject.meaning, "floor": subject.floor}
        document["subjects"][subject.name] = of | {"closed": [], "open": [], "mib": []}
        if subject.rows:
            prefill(world.directory / subject.name, subject.rows)
    with world.answering():
        for round_ in range(args.rounds):
            for part, cpu_us in floor(world, args.seconds / 4).items():
                document["parts"].setdefault(part, []).append(cpu_us)
            for subject in subjects:
                figures = measured(world, subject, args.seconds)
                for name, figure in figures.items():
                    document["subjects"][subject.name][name].append(figure)
                failed += reported(round_ + 1, subject, figures)
            document["how"]["rounds"] = round_ + 1
            tables.write(document, results)
        if not args.only or "growth" in args.only.split(","):
            document["growth"] = {"facts": document["facts"], "points": growth(world, args.growth_calls)}
            tables.write(document, results)
    return failed


def reported(round_: int, subject: Subject, figures: dict[str, Any]) -> int:
    """Print one line about a subject; return how many calls had an unexpected status."""
    closed, open_ = figures["closed"], figures["open"]
    failed = unexpected(subject, closed) + unexpected(subject, open_)
    speed = f"{closed['cpu_us']:6.0f} us {closed['rate']:6.0f}/s  p99 {open_['p99_ms']:6.1f} ms"
    note = f"  {failed} CALLS FAILED: {closed['errors']} {open_['errors']}" if failed else ""
    print(f"{round_}  {subject.name:<14} {speed}{note}", flush=True)
    return failed


def main() -> int:
    """Measure, write JSON and tables, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="subjects or groups, with commas between them")
    parser.add_argument("--quick", action="store_true", help="a short form that shows only that all works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each loop of each subject")
    parser.add_argument("--rows-max", type=int, default=1_000_000, help="of the ledger")
    parser.add_argument("--growth-calls", type=int, default=1_000_000)
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.rows_max, args.growth_calls = 1, 1.5, 100_000, 5_000
    # A thousand connections need more descriptors than some shells allow.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    BUILT.mkdir(parents=True, exist_ok=True)
    results = (BUILT if args.quick or args.only else tables.RESULTS.parent) / tables.RESULTS.name
    with tempfile.TemporaryDirectory(dir=BUILT) as directory:
        how = {"rounds": 0, "seconds": args.seconds}
        document: dict[str, Any] = {"facts": facts(BUILT), "how": how, "parts": {}, "subjects": {}}
        with closing(World(Path(directory))) as world:
            failed = run(world, args, document, results)
    print(f"\n{tables.markdown(document)}\n{results}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
