"""Run the simulation: `make simulate SEEDS=2000`, `make simulate SEED=7`, `make simulate MUTANTS=all`.

`LEDGER=postgres` gives each of these two or three hosts and a ledger on PostgreSQL.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from typing import Final

from .mutants import MUTANTS
from .postgres_mutants import POSTGRES_MUTANTS
from .postgres_session import Address, server
from .simulator import Simulator, simulator

BATCH: Final = 50
MUTANT_SEEDS: Final = 500
"""Within so many seeds every mutant must be noticed."""
SHOWN_MAX: Final = 20

Failures = list[tuple[int, str]]


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201


def run_batch(seeds: range, postgres: Address | None = None) -> Failures:
    """Run some seeds; return those that failed, each with what it broke."""
    with simulator(postgres) as simulation:
        return [(seed, text) for seed in seeds if (text := failure(simulation, seed))]


def failure(simulation: Simulator, seed: int, mutant: str = "") -> str:
    """Run one seed; return what it broke, and empty if it broke nothing."""
    try:
        findings = simulation.run(simulation.plan(seed), mutant=mutant).findings
    except Exception as error:  # noqa: BLE001  (a fault of a seed must not hide the others)
        return f"{type(error).__name__}: {error}"
    return str(findings[0]) if findings else ""


def first_noticed(
    name: str, seeds: int = MUTANT_SEEDS, postgres: Address | None = None
) -> tuple[str, int, str]:
    """Return a mutant, the first seed that notices it, and what that finds; -1 if no seed does."""
    with simulator(postgres) as simulation:
        for seed in range(seeds):
            if text := failure(simulation, seed, name):
                return name, seed, text
    return name, -1, f"not noticed within {seeds} seeds"


def run_seeds(first: int, count: int, postgres: Address | None) -> int:
    """Run many seeds on all cores; print those that fail."""
    began_s = time.monotonic()
    end = first + count
    batches = [range(start, min(start + BATCH, end)) for start in range(first, end, BATCH)]
    failed = 0
    with _pool() as pool:
        for failures in pool.map(partial(run_batch, postgres=postgres), batches):
            for seed, text in failures:
                failed += 1
                if failed <= SHOWN_MAX:
                    say(f"seed {seed}: {text}")
    took_s = time.monotonic() - began_s
    each_ms = took_s / count * 1000
    say(f"{count} seeds from {first}: {failed} failed; {took_s:.0f} s, {each_ms:.0f} ms a seed")
    if failed:
        say("Run a seed again with its trace: make simulate SEED=…")
    return 1 if failed else 0


def run_mutants(names: list[str], seeds: int, postgres: Address | None) -> int:
    """Print for each mutant the first seed that notices it."""
    missed = 0
    with _pool() as pool:
        for name, seed, text in pool.map(partial(first_noticed, seeds=seeds, postgres=postgres), names):
            missed += seed < 0
            say(f"{name:16} {'-' if seed < 0 else seed:>5}  {text}")
    say(f"{len(names)} mutants: {missed} not noticed")
    return 1 if missed else 0


def show(seed: int, mutant: str, postgres: Address | None, *, short: bool) -> int:
    """Print the plan of a seed, its trace, and what it broke; make it short first if it breaks anything."""
    with simulator(postgres) as simulation:
        plan = simulation.plan(seed)
        findings = simulation.run(plan, mutant=mutant).findings
        if findings and short:
            plan = simulation.shortened(plan, findings[0].invariant, mutant)
        result = simulation.run(plan, mutant=mutant, tracing=True)
    for line in _shown(str(plan), result.trace, [str(finding) for finding in result.findings]):
        say(line)
    return 1 if result.findings else 0


def _shown(plan: str, trace: list[str], findings: list[str]) -> Iterator[str]:
    yield plan
    yield from trace
    yield from findings or ["nothing is broken"]


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))


def main() -> int:
    """Read the arguments, and run."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run one seed, and print its trace")
    parser.add_argument("--long", action="store_true", help="do not make a failing plan shorter")
    parser.add_argument(
        "--mutants", help="`all` or names, separated by commas: check that they are noticed"
    )
    parser.add_argument("--ledger", choices=["postgres"], help="the ledger, if the plans do not choose it")
    args = parser.parse_args()
    mutants = POSTGRES_MUTANTS | MUTANTS if args.ledger else MUTANTS
    every = POSTGRES_MUTANTS if args.ledger else MUTANTS
    reached = [name for name, mutant in every.items() if not mutant.test]
    names = reached if args.mutants == "all" else (args.mutants or "").split(",")
    if unknown := [name for name in names if name and name not in mutants]:
        parser.error(f"no mutant is named {', '.join(unknown)}; there are {', '.join(mutants)}")
    with server() if args.ledger else nullcontext() as postgres:
        if args.seed is not None:
            return show(args.seed, names[0], postgres, short=not args.long)
        if args.mutants:
            return run_mutants(names, min(args.seeds, MUTANT_SEEDS), postgres)
        return run_seeds(args.first, args.seeds, postgres)


if __name__ == "__main__":
    sys.exit(main())
