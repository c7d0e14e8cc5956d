"""Marked identity values never appear in the ledger, the output of its commands, or a real Prometheus."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.caller import Reported
from tests.e2e.gateway import run as command
from tests.e2e.samples import APIS, SYNC, Api
from tests.e2e.test_privacy import FRAGMENTS, MARKS, OUTCOMES, check_clean, marked
from tests.e2e.upstream import Upstream, hangs
from tests.monitoring.prometheus import Prometheus, scraping, until
from tests.postgres.server import program
from tests.scenarios.conftest import RunReplicas, RunSystem
from tests.scenarios.system import System, changed, reused

NEEDLES = {
    needle
    for mark in (*FRAGMENTS, *MARKS.values(), "the reason")
    for needle in (
        mark.encode(),
        json.dumps(mark).strip('"').encode(),
        base64.b64encode(mark.encode()).rstrip(b"=")[:-1],
        mark.encode("utf-16-le"),
    )
    if len(needle) > 4
}
KINDS = [kind for kind in OUTCOMES if kind not in {"hang", "page"}]


async def ledger_output(system: System) -> str:
    """Return the output of the ledger's list and export commands."""
    listed = await command("ledger", "list", "--json", settings=system.gateway.settings)
    exported = await command("ledger", "export", "--since", "2020-01-01", settings=system.gateway.settings)
    assert (listed.status, exported.status) == (0, 0)
    assert len(exported.out.splitlines()) >= len(KINDS) // 2
    return listed.out + exported.out


def contents(directory: Path) -> dict[str, bytes]:
    """Return the content of every file; check that only its owner can read it."""
    assert {oct(file.stat().st_mode & 0o777) for file in directory.iterdir()} == {"0o600"}
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def dumped(url: str) -> bytes:
    """Return everything in a database; `pg_dump` writes bytes as hexadecimal digits."""
    dump = subprocess.run([program("pg_dump"), "--inserts", url], capture_output=True, check=True)
    return dump.stdout


def scraped(prometheus: Prometheus) -> str:
    """Return everything that Prometheus knows of the gateway after one more scrape."""
    now_s = time.time()
    until(lambda: prometheus.query(f"timestamp(up) > {now_s}"))
    series = prometheus.get("series", **{"match[]": '{job="alipayhk-gateway"}'})
    pages = (series, prometheus.get("metadata"), prometheus.get("alerts"))
    return json.dumps(pages, ensure_ascii=False)


async def call_with_each_outcome(system: System, api: Api) -> None:
    """Call with a marked value in every field, once for each outcome; AlipayHK echoes the values."""
    for kind in KINDS:
        system.upstream.script, request = OUTCOMES[kind](system.wallet), marked(api)
        if api is SYNC:
            request.external_identity_value += kind
        result = await system.call(api, request, timeout_s=8 if kind == "success" else 1.5)
        assert isinstance(result, Reported) is (kind != "success"), kind
        if kind == "success":
            await system.reported(api, changed(api, request), reused(api))
    system.upstream.script = hangs
    await system.call(api, marked(api), timeout_s=1.5)


@pytest.mark.parametrize("api", APIS, ids=str)
async def test_marked_values_are_in_no_file_and_no_output_of_the_ledger(
    run_system: RunSystem, tmp_path: Path, api: Api
) -> None:
    async with run_system() as system:
        await call_with_each_outcome(system, api)
        files = contents(tmp_path)
        assert set(files) >= {"ledger.db", "ledger.db-wal", "ledger.db.key"}
        assert [name for name, data in files.items() if any(needle in data for needle in NEEDLES)] == []
        words = await ledger_output(system)
        assert [mark for mark in FRAGMENTS if mark in words] == []
        await check_clean(system.gateway)
    assert not any(needle in data for data in contents(tmp_path).values() for needle in NEEDLES)


async def test_marked_values_are_neither_in_the_database_nor_in_prometheus(
    run_replicas: RunReplicas, upstream: Upstream, postgres_url: str, tmp_path: Path
) -> None:
    async with run_replicas(postgres_url, "a") as (system,):
        with scraping(system.gateway.admin, tmp_path) as prometheus:
            for api in APIS:
                await call_with_each_outcome(system, api)
            known = scraped(prometheus)
        assert '"reason": "WALLET_REJECTED"' in known
        assert [mark for mark in FRAGMENTS if mark in known] == []
        dump = dumped(postgres_url)
        assert dump.count(b"INSERT INTO public.alipayhk_request ") >= len(KINDS)
        assert not any(needle in dump or needle.hex().encode() in dump for needle in NEEDLES)
        words = await ledger_output(system)
        assert [mark for mark in FRAGMENTS if mark in words] == []
        await check_clean(system.gateway)
