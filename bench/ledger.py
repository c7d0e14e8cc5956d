"""Compare the ledger's levels: `python -m bench.ledger [--requests N] [--directory DIR]`.

A request is two operations: the claim of a new id and the record of its outcome. All levels run in one
process, in turn in each round, so that the ratios are valid on a machine with a varying speed.
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

from bench.tables import PAGE, quoted, table
from service.ledger import Claim, Ending, Granted, Key, Ledger, State
from service.ledger.levels import LEVELS
from service.ledger.opening import open_ledger
from service.ledger.vault import Vault, make_key_file
from tests.postgres.server import Postgres

CONCURRENCIES: Final = (1, 64)
ROUNDS: Final = 3
REPLY: Final = bytes(300)


@dataclass(frozen=True, slots=True)
class Figures:
    """The measurements of one round."""

    operations_per_s: float
    cpu_us: float
    """CPU time of all threads per operation."""
    p99_ms: float
    """Latency of a claim, as its caller sees it."""


def claims(vault: Vault, count: int, round_: str) -> list[Claim]:
    """Return new requests, each for a different linkage."""
    return [
        Claim(
            key=Key("SANDBOX_CLIENT_1", "SyncLinkage", f"{round_}-{number:012d}"),
            caller="bench",
            fingerprint=vault.fingerprint(f"{round_}{number}".encode()),
            linkage=vault.linkage(("UID", f"{round_}{number}", "user", "USER_ID", "")),
            biz_time_ms=1_000 + number,
            biz_time_max_ms=10**12,
            may_repeat=True,
            lease_ms=5_000,
        )
        for number in range(count)
    ]


async def measure(ledger: Ledger, requests: list[Claim], concurrency: int) -> Figures:
    """Process the requests with this many concurrent callers."""
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


async def run(count: int, directory: Path, postgres: Postgres) -> str:
    """Measure every level; return a table."""
    opened = {}
    for row in LEVELS:
        key = None
        if row.needs_key_file:
            url, key = postgres.url("bench"), directory / "ledger.key"
            make_key_file(key, random_bytes=os.urandom)
        else:
            url = row.scheme if row.check_url is None else f"{row.scheme}{directory}/bench.db"
        opened[row.name] = open_ledger(url, key, random_bytes=os.urandom, pool_max=4, timeout_s=10)
    rounds: defaultdict[tuple[int, str], list[Figures]] = defaultdict(list)
    for round_ in range(ROUNDS):
        for concurrency in CONCURRENCIES:
            for level, (ledger, vault) in opened.items():
                requests = claims(vault, count, f"{round_}-{concurrency}")
                rounds[concurrency, level].append(await measure(ledger, requests, concurrency))
    for ledger, _ in opened.values():
        await ledger.close()
    heads = ("level, callers", "operations/s", "CPU µs per operation", "p99 of a claim, ms")
    return table(heads, (_row(place, of) for place, of in rounds.items())) + "\n"


def _row(place: tuple[int, str], rounds: list[Figures]) -> tuple[str, ...]:
    of, (concurrency, level) = _median(rounds), place
    figures = f"{of.operations_per_s:,.0f}", f"{of.cpu_us:.1f}", f"{of.p99_ms:.2f}"
    return f"{level}, {concurrency}", *figures


def _median(rounds: list[Figures]) -> Figures:
    return sorted(rounds, key=lambda figures: figures.operations_per_s)[len(rounds) // 2]


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=5_000, metavar="N")
    parser.add_argument("--directory", type=Path, help="parent directory of the temporary SQLite file")
    parser.add_argument("--results", action="store_true", help="quote the table in the docs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as directory, Postgres.start() as postgres:
        postgres.create_database("bench")
        text = asyncio.run(run(args.requests, Path(directory), postgres))
    print(f"{args.requests} requests a round, the median of {ROUNDS} rounds\n{text}")
    if args.results:
        PAGE.write_text(quoted(PAGE.read_text("utf-8"), text, "levels"), "utf-8")


if __name__ == "__main__":
    main()
