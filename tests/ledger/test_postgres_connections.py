"""Connections of the ledger on PostgreSQL: several hosts, and PgBouncer in front of the server."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from service.ledger import LedgerUnavailable
from service.ledger.postgres.database import Database
from service.ledger.postgres.url import check_url, each_host, for_driver, prepares_statements
from tests.ports import free_port
from tests.postgres.fixtures import StartPostgres
from tests.postgres.pgbouncer import PgBouncer
from tests.postgres.server import Postgres

PATIENCE_S: Final = 20.0
SESSIONS: Final = 2
CALLS: Final = 400


@asynccontextmanager
async def database(
    url: str, *, pool_max: int = 4, timeout_s: float = PATIENCE_S
) -> AsyncIterator[Database]:
    opened = Database(url, pool_max=pool_max, timeout_s=timeout_s)
    try:
        yield opened
    finally:
        await opened.close()


def with_hosts(url: str, before: int, after: int) -> str:
    """Return a URL with two more hosts, ports of this one, before and after its own."""
    user, _, rest = url.rpartition("@")
    hosts, _, database = rest.partition("/")
    return f"{user}@127.0.0.1:{before},{hosts},127.0.0.1:{after}/{database}"


@pytest.fixture
def silent() -> Iterator[int]:
    """Return a port where connections are accepted by the kernel only, as by a frozen server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# -- several hosts


def test_each_host_has_a_url() -> None:
    url = "postgresql://u:p%40@{}/db?sslmode=require&x=1%2C2"
    hosts = ["a", "b:1", "[::1]:2"]
    assert each_host(url.format(",".join(hosts))) == [url.format(host) for host in hosts]
    assert each_host("postgresql:///db") == ["postgresql:///db"]


async def test_silent_host_does_not_use_up_the_time_of_the_next_one(postgres_url: str, silent: int) -> None:
    url = with_hosts(postgres_url, silent, free_port())
    async with database(url) as opened:
        assert await opened.value("SELECT $1::bigint", 7) == 7


async def test_host_that_refuses_connections_is_skipped(postgres_url: str, silent: int) -> None:
    async with database(with_hosts(postgres_url, free_port(), silent)) as opened:
        assert await opened.value("SELECT 7") == 7


async def test_standby_is_skipped(start_postgres: StartPostgres) -> None:
    primary = start_postgres()
    standby = primary.standby()
    async with database(standby.url("postgres", primary)) as opened:
        assert await opened.value("SELECT pg_is_in_recovery()") is False


async def test_no_host_answers_in_time(silent: int) -> None:
    url = f"postgresql://gateway@127.0.0.1:{silent},127.0.0.1:{free_port()}/ledger"
    async with database(url, timeout_s=1.0) as opened:
        with pytest.raises(LedgerUnavailable, match="TimeoutError"):
            await opened.value("SELECT 7")


# -- many operations


async def test_connection_that_is_made_too_late_is_for_the_next_operation(
    start_postgres: StartPostgres,
) -> None:
    server = start_postgres(log_connections=True)
    async with database(server.url("postgres"), pool_max=1) as opened:
        await asyncio.to_thread(server.freeze)
        late = asyncio.create_task(opened.value("SELECT 7"))
        await asyncio.wait({late}, timeout=0.5)
        late.cancel()
        await asyncio.wait({late})
        next_one = asyncio.create_task(opened.value("SELECT 7"))
        await asyncio.to_thread(server.thaw)
        assert await next_one == 7
    assert server.log().count("connection received: host=127.0.0.1") == 1


async def test_operation_waits_for_others_for_half_of_its_time_limit(postgres_url: str) -> None:
    async with database(postgres_url, pool_max=1, timeout_s=4.0) as opened:
        other = asyncio.create_task(opened.value("SELECT pg_sleep(600)"))
        await asyncio.sleep(0)
        started = time.monotonic()
        with pytest.raises(LedgerUnavailable):
            await opened.value("SELECT 7")
        assert time.monotonic() - started > 1.5
        assert not other.done()
        with pytest.raises(LedgerUnavailable):
            await other
        assert await opened.value("SELECT 7") == 7


# -- PgBouncer


def test_option_for_pgbouncer_is_not_given_to_the_driver() -> None:
    url = "postgresql://u@a/db?prepared_statements={}&sslmode=require"
    for value in ("true", "false"):
        check_url(url.format(value))
        assert for_driver(url.format(value)) == "postgresql://u@a/db?sslmode=require"
    assert for_driver("postgresql://u@a/db?prepared_statements=false") == "postgresql://u@a/db"
    assert not prepares_statements(url.format("false"))
    assert prepares_statements(url.format("true"))
    with pytest.raises(ValueError, match="prepared_statements must be true or false"):
        check_url(url.format("no"))


@pytest.fixture(scope="module")
def behind() -> Iterator[str]:
    """Return the URL of a database behind PgBouncer in transaction mode, with two sessions."""
    with Postgres.start(fsync=False) as server:
        server.create_database("ledger")
        yield PgBouncer.start(server, default_pool_size=SESSIONS).url("ledger")


async def test_statements_of_several_gateways_are_not_mixed_up(behind: str) -> None:
    """They have the same parameters, so that the server would execute one in place of another."""
    async with (
        database(f"{behind}?prepared_statements=false", pool_max=8) as one,
        database(f"{behind}?prepared_statements=false", pool_max=8) as other,
    ):

        async def call(number: int) -> None:
            opened, name = (one, other)[number % 2], f"statement {number % 7}"
            row = (await opened.fetch(f"SELECT $1::bigint AS number, '{name}' AS name", number))[0]
            assert (row["number"], row["name"]) == (number, name)

        await asyncio.gather(*map(call, range(CALLS)))


async def test_missing_option_is_named(behind: str) -> None:
    async with database(behind, pool_max=8) as one, database(behind, pool_max=8) as other:
        calls = [opened.value("SELECT $1::bigint", 7) for opened in (one, other) for _ in range(CALLS)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    causes = {str(result) for result in results if isinstance(result, LedgerUnavailable)}
    assert any("LEDGER_URL needs prepared_statements=false" in cause for cause in causes), causes
