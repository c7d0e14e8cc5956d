"""Measure PostgreSQL under the ledger: `python -m bench.postgres [--seconds S] [--rows N] [--results]`.

Two tables for `docs/scale.md`:

- How many requests a second (a claim and an outcome each) PostgreSQL serves on a core of its own. The
  client is pgbench on another core, because a client in Python would be used up first. It calls the
  functions of the schema as the gateway does.
- A table that grows to many rows, each inserted and updated once, as by a claim and an outcome: its size,
  VACUUM, the ledger on it, and how long it takes to drop a tenth of the rows.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import tempfile
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import asyncpg

from bench.ledger import REPLY, claims, measure
from bench.tables import ROOT, quoted, table
from service.ledger import Ending, Granted, Ledger, State
from service.ledger.opening import open_ledger
from service.ledger.vault import Vault, make_key_file
from tests.postgres.processes import processes_in
from tests.postgres.server import Postgres, program

PAGE: Final = ROOT / "docs" / "scale.md"
SETTINGS: Final = {"shared_buffers": "1GB", "max_wal_size": "4GB", "maintenance_work_mem": "256MB"}
SERVER_CORES, CLIENT_CORES = frozenset({0}), frozenset({1})
CONNECTIONS: Final = (1, 4, 16, 64)
CALLERS: Final = 64
REQUESTS: Final = 20_000
STEP: Final = 100_000
DROPPED: Final = 0.1
CALL: Final = r"""
    \set r random(1, 1000000000000000)
    SELECT granted AS token FROM alipayhk_claim(true, 'r' || :r, 'SyncLinkage', 'C', 'bench', 'key',
        sha256(('c' || :r)::bytea), sha256(('l' || :r)::bytea), 1000, 13000, 61000, 2000, 1000,
        decode(md5(:r::text), 'hex'), true, false, false, 0, 0, '\x01'::bytea) \gset
    SELECT alipayhk_record('r' || :r, 'SyncLinkage', 'C', :token, 'applied', 'S', 'SUCCESS',
        decode(repeat('00', 300), 'hex'), 1000, true);
"""
INSERT: Final = """
    INSERT INTO alipayhk_request
    SELECT 'before-' || n, api, client_id, caller, key_id, sha256(n::text::bytea),
        sha256(('l' || n)::bytea), biz_time_ms, 'sending', 1, n, decode(md5(n::text), 'hex'), 0, false,
        $3::bigint + n, $3::bigint + n, 2 * n
    FROM first, generate_series($1::bigint, $2::bigint) AS n
"""
UPDATE: Final = """
    UPDATE alipayhk_request SET state = 'applied', result_status = 'S', result_code = 'SUCCESS',
        sealed = first.sealed, change = 2 * alipayhk_request.token + 1
    FROM first WHERE alipayhk_request.change BETWEEN 2 * $1::bigint AND 2 * $2::bigint
        AND alipayhk_request.state = 'sending'
"""
SIZES: Final = "SELECT pg_table_size('alipayhk_request'), pg_indexes_size('alipayhk_request')"


def saturation(postgres: Postgres, seconds: int) -> str:
    """Return a table of the requests a second of a server on one core."""
    rows = []
    with _on_separate_cores(postgres):
        for connections in CONNECTIONS:
            text = postgres.home.run(
                *(program("pgbench"), "--no-vacuum", "--protocol=prepared", "--file=-"),
                *(f"--client={connections}", f"--time={seconds}", "--username=postgres"),
                *("--host", postgres.home.path, "--port", str(postgres.port), "bench"),
                text=CALL,
            )
            assert "number of failed transactions: 0 " in text, text
            rows.append(
                (f"{connections}", f"{_figure('tps', text):,.0f}", f"{_figure('latency', text):.1f}")
            )
    return table(("connections", "requests/s", "latency, ms"), rows) + "\n"


def _figure(name: str, text: str) -> float:
    found = re.search(rf"{name}\D*= ([0-9.]+)", text)
    assert found, text
    return float(found[1])


@contextmanager
def _on_separate_cores(postgres: Postgres) -> Iterator[None]:
    every = os.sched_getaffinity(0)
    _pin(postgres, SERVER_CORES)
    os.sched_setaffinity(0, CLIENT_CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)
        _pin(postgres, every)


def _pin(postgres: Postgres, cores: AbstractSet[int]) -> None:
    for pid in processes_in(postgres.directory):
        with suppress(ProcessLookupError):  # a connection that was just closed
            os.sched_setaffinity(pid, cores)


async def growth(postgres: Postgres, url: str, key: Path, count: int) -> str:
    """Return a table about a ledger with so many requests."""
    ledger, vault = open_ledger(url, key, random_bytes=os.urandom, pool_max=4, timeout_s=60)
    server = await asyncpg.connect(
        host=str(postgres.home.path), port=postgres.port, user="postgres", database="bench"
    )
    now_ms = int(time.time() * 1000)
    rows = [("requests/s of the empty ledger", await _requests_per_s(ledger, vault, "empty"))]
    took_s = await _fill(ledger, vault, server, count, now_ms)
    rows.append(("rows", f"{count:,}, written in {took_s:.0f} s"))
    (sizes,) = await server.fetch(SIZES)
    in_table, in_indexes = sizes
    rows.append(
        ("bytes a row", f"{in_table / count:.0f} in the table, {in_indexes / count:.0f} in indexes")
    )
    rows.append(("VACUUM ANALYZE", await _seconds(server.execute("VACUUM ANALYZE alipayhk_request"))))
    rows.append(("requests/s", await _requests_per_s(ledger, vault, "full")))
    before_ms = now_ms - round(count * (1 - DROPPED))
    await server.execute("INSERT INTO alipayhk_clock_mark VALUES ($1, $2)", before_ms - 1, 2 * count)
    dropping = ledger.drop(before_ms=before_ms, now_ms=now_ms)
    rows.append((f"dropping {DROPPED:.0%} of the rows", await _seconds(dropping)))
    rows.append(("VACUUM after it", await _seconds(server.execute("VACUUM alipayhk_request"))))
    await server.close()
    await ledger.close()
    return table((f"{CALLERS} callers, 4 connections", "measured"), rows) + "\n"


async def _fill(
    ledger: Ledger, vault: Vault, server: asyncpg.Connection[Any], count: int, now_ms: int
) -> float:
    """Write so many requests, a millisecond apart up to now; return the seconds that it took."""
    (claim,) = claims(vault, 1, "first")
    answer = await ledger.claim(claim, now_ms)
    assert isinstance(answer, Granted)
    await ledger.record(claim.key, answer.token, Ending(State.APPLIED, "S", "SUCCESS", REPLY), now_ms)
    await server.execute(
        "CREATE UNLOGGED TABLE first AS SELECT * FROM alipayhk_request WHERE request_id LIKE 'first-%';"
        "ALTER TABLE alipayhk_request SET (autovacuum_vacuum_scale_factor = 0.02)"
    )
    began_s = time.perf_counter()
    for start in range(1, count + 1, STEP):
        end = min(start + STEP - 1, count)
        await server.execute(INSERT, start, end, now_ms - count)
        await server.execute(UPDATE, start, end)
    await server.execute(
        f"SELECT setval('alipayhk_token', {2 * count}), setval('alipayhk_change', {4 * count})"
    )
    return time.perf_counter() - began_s


async def _requests_per_s(ledger: Ledger, vault: Vault, round_: str) -> str:
    figures = await measure(ledger, claims(vault, REQUESTS, round_), CALLERS)
    return f"{figures.operations_per_s / 2:,.0f}, p99 of a claim {figures.p99_ms:.0f} ms"


async def _seconds(work: Any) -> str:
    began_s = time.perf_counter()
    await work
    return f"{time.perf_counter() - began_s:.0f} s"


async def _create(url: str, key: Path) -> None:
    ledger, _ = open_ledger(url, key, random_bytes=os.urandom)
    await ledger.close()


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--seconds", type=int, default=20, metavar="S", help="of each number of connections"
    )
    parser.add_argument("--rows", type=int, default=10_000_000, metavar="N")
    parser.add_argument("--results", action="store_true", help="quote the tables in the docs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Postgres.start(**SETTINGS) as postgres:
        make_key_file(key := Path(directory) / "ledger.key", random_bytes=os.urandom)
        postgres.create_database("bench")
        asyncio.run(_create(url := postgres.url("bench"), key))
        texts = {"one core": saturation(postgres, args.seconds)}
        postgres.execute("TRUNCATE alipayhk_request", "bench")
        texts["growth"] = asyncio.run(growth(postgres, url, key, args.rows))
    print(*texts.values(), sep="\n")
    if args.results:
        page = PAGE.read_text("utf-8")
        for part, text in texts.items():
            page = quoted(page, text, part)
        PAGE.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
