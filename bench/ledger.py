"""Measure the ledger's levels beside each other: `python bench/ledger.py [--requests N] [--directory DIR]`.

A request is a claim of a new id and the record of its ending: two operations. All levels run in one
process, one after the other and round by round, so that the ratios hold on a machine whose speed wavers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.ledger import Claim, Ending, Granted, Key, Ledger, State
from service.ledger.levels import LEVELS
from service.ledger.opening import open_ledger
from service.ledger.vault import Vault

CONCURRENCIES: Final = (1, 64)
ROUNDS: Final = 3
REPLY: Final = bytes(300)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one round gave."""

    operations_per_s: float
    cpu_us: float
    """Of all threads, for an operation."""
    p99_ms: float
    """Of a claim, as its caller waits for it."""


def claims(vault: Vault, count: int, round_: str) -> list[Claim]:
    """Make new requests, each for a linkage of its own."""
    return [
        Claim(
            key=Key("SANDBOX_CLIENT_1", "SyncLinkage", f"{round_}-{number:012d}"),
            caller="bench",
            fingerprint=vault.fingerprint(f"{round_}{number}".encode()),
            linkage=vault.linkage(("UID", f"{round_}{number}", "user", "USER_ID", "")),
            biz_time_ms=1_000 + number,
            biz_time_max_ms=10**12,
            may_repeat=True,
        )
        for number in range(count)
    ]


async def measure(ledger: Ledger, requests: list[Claim], concurrency: int) -> Figures:
    """Let so many callers at once work through the requests."""
    waits: list[float] = []
    ending = Ending(State.APPLIED, "S", "SUCCESS", REPLY)

    async def work(mine: Iterator[Claim]) -> None:
        for claim in mine:
            began = time.perf_counter()
            answer = await ledger.claim(claim, 1_000)
            waits.append(time.perf_counter() - began)
            if not isinstance(answer, Granted) or not await ledger.record(
                claim.key, answer.token, ending, 1_001
            ):
                raise RuntimeError("a new request was not granted")

    together = iter(requests)
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work(together) for _ in range(concurrency)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    operations = 2 * len(requests)
    p99_s = statistics.quantiles(waits, n=100)[98]
    return Figures(operations / wall, cpu / operations * 1e6, p99_s * 1e3)


async def run(count: int, directory: Path) -> None:
    """Measure every level, and print a table."""
    opened = {}
    for level in LEVELS:
        url = level.scheme if level.check_url is None else f"{level.scheme}{directory}/bench.db"
        opened[level.name] = open_ledger(url, None, random_bytes=os.urandom)
    rounds: defaultdict[tuple[int, str], list[Figures]] = defaultdict(list)
    for round_ in range(ROUNDS):
        for concurrency in CONCURRENCIES:
            for level, (ledger, vault) in opened.items():
                requests = claims(vault, count, f"{round_}-{concurrency}")
                rounds[concurrency, level].append(await measure(ledger, requests, concurrency))
    for ledger, _ in opened.values():
        await ledger.close()
    print(f"{count} requests a round, the median of {ROUNDS} rounds")
    print(f"{'callers':>7} {'level':>7} {'operations/s':>13} {'of memory':>10} {'CPU us':>7} {'p99 ms':>7}")
    for concurrency in CONCURRENCIES:
        memory = _median(rounds[concurrency, "memory"]).operations_per_s
        for level in opened:
            of = _median(rounds[concurrency, level])
            speeds = f"{of.operations_per_s:13,.0f} {of.operations_per_s / memory:10.3f}"
            print(f"{concurrency:7} {level:>7} {speeds} {of.cpu_us:7.1f} {of.p99_ms:7.2f}")


def _median(rounds: list[Figures]) -> Figures:
    return sorted(rounds, key=lambda figures: figures.operations_per_s)[len(rounds) // 2]


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=5_000, metavar="N")
    parser.add_argument("--directory", type=Path, help="where the SQLite file is put for the while")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as directory:
        asyncio.run(run(args.requests, Path(directory)))


if __name__ == "__main__":
    main()
