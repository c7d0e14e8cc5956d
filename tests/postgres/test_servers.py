"""Tests of the servers themselves, with the driver that the ledger uses."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import asyncpg
import pytest

from tests.postgres import pgbouncer, processes, server
from tests.postgres.fixtures import StartPostgres
from tests.postgres.pgbouncer import PgBouncer
from tests.postgres.processes import WAIT_MAX_S, is_running, processes_in
from tests.postgres.server import Postgres

ROOT: Final = Path(__file__).resolve().parents[2]
PAUSE_S: Final = 1.0
"""The time in which an operation that should not finish would have finished, in seconds."""
LOST: Final = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)
RECOVERED: Final = "database system was not properly shut down"


def with_rows(postgres: Postgres) -> Postgres:
    postgres.create_database("rows")
    postgres.execute("CREATE TABLE rows (id text); GRANT ALL ON rows TO gateway", "rows")
    return postgres


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    """Return a server that the tests of this module stop and start again."""
    with Postgres.start() as own:
        yield with_rows(own)


@asynccontextmanager
async def connected(url: str, **how: Any) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(url, timeout=WAIT_MAX_S, command_timeout=WAIT_MAX_S, **how)
    try:
        yield connection
    finally:
        connection.terminate()


async def insert(url: str, row: str, **how: Any) -> None:
    async with connected(url, **how) as connection:
        await connection.execute(f"INSERT INTO rows VALUES ('{row}')")


async def rows(url: str) -> list[str]:
    async with connected(url) as connection:
        return [row["id"] for row in await connection.fetch("SELECT id FROM rows")]


async def is_waiting(task: asyncio.Task[Any]) -> bool:
    """Return whether a task does not finish within a pause."""
    return not (await asyncio.wait({task}, timeout=PAUSE_S))[0]


async def started_query(
    connection: asyncpg.Connection[asyncpg.Record], own: Postgres, sql: str
) -> asyncio.Task[Any]:
    """Start a query; return its task when the server executes it."""
    task = asyncio.create_task(connection.execute(sql))
    running = f"SELECT count(*) FROM pg_stat_activity WHERE query = '{sql}' AND state = 'active'"
    while await asyncio.to_thread(own.execute, running) == "0":
        assert not task.done()
    return task


# -- databases


async def test_a_test_gets_an_empty_database_that_the_gateway_owns(postgres_url: str) -> None:
    async with connected(postgres_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        assert await connection.fetchval("SELECT usesuper FROM pg_user WHERE usename = user") is False
        await connection.execute("CREATE TABLE rows (id text)")


async def test_a_database_is_a_copy_of_its_template(own: Postgres) -> None:
    own.create_database("empty", "rows")
    assert await rows(own.url("empty")) == []


async def test_a_connection_needs_the_password(postgres: Postgres) -> None:
    url = postgres.url("postgres")
    wrong = re.sub(r"(?<=gateway:)[^@]+", "guess", url)
    async with connected(url):
        pass
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(wrong)


def test_fsync_is_on_unless_a_test_sets_it_off(own: Postgres, postgres: Postgres) -> None:
    assert own.execute("SHOW fsync") == "on"
    assert postgres.execute("SHOW fsync") == "off"


# -- stopped, killed


@pytest.mark.parametrize(
    ("stop", "recovers"),
    [
        (Postgres.stop, False),
        (lambda own: own.stop("immediate"), True),
        (Postgres.kill, True),
    ],
    ids=["fast", "immediate", "kill"],
)
async def test_a_server_that_starts_again_has_what_was_committed(
    own: Postgres, stop: Callable[[Postgres], None], recovers: bool, request: pytest.FixtureRequest
) -> None:
    url, row, before = own.url("rows"), request.node.callspec.id, len(own.log())
    await insert(url, row)
    async with connected(url) as connection:
        query = await started_query(connection, own, "SELECT pg_sleep(600)")
        stop(own)
        with pytest.raises((*LOST, asyncpg.AdminShutdownError)):
            await query
    assert processes_in(own.directory) == []
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(url)
    own.start_again()
    assert row in await rows(url)
    assert (RECOVERED in own.log()[before:]) is recovers


# -- frozen


async def test_a_frozen_server_answers_after_the_thaw(own: Postgres) -> None:
    async with connected(own.url("rows")) as connection:
        own.freeze()
        query = asyncio.create_task(connection.fetchval("SELECT 1"))
        new = asyncio.create_task(insert(own.url("rows"), "after the thaw"))
        assert await is_waiting(query)
        assert await is_waiting(new)
        own.thaw()
        assert await query == 1
        await new


async def test_a_freeze_misses_no_backend_that_is_just_starting(own: Postgres) -> None:
    async def reconnect() -> None:
        while True:
            async with connected(own.url("rows")):
                pass

    clients = [asyncio.create_task(reconnect()) for _ in range(4)]
    for number in range(10):
        await asyncio.sleep(0.01 * number)
        own.freeze()
        frozen = processes_in(own.directory)
        assert len(frozen) > 1
        await asyncio.sleep(0.1)
        assert processes_in(own.directory) == frozen
        assert not any(map(is_running, frozen))
        own.thaw()
    for client in clients:
        client.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError)
        for end in await asyncio.gather(*clients, return_exceptions=True)
    )


# -- standbys


async def test_a_promoted_standby_has_what_was_committed_synchronously(
    start_postgres: StartPostgres,
) -> None:
    primary = with_rows(start_postgres())
    standby = primary.standby()
    url = primary.url("rows", standby, target_session_attrs="read-write")
    for number in range(20):
        await insert(url, str(number))
    standby.freeze()
    waiting = asyncio.create_task(insert(url, "in doubt"))
    assert await is_waiting(waiting)
    primary.kill()
    with pytest.raises(LOST):
        await waiting
    standby.thaw()
    standby.promote()
    await insert(url, "after")
    assert {*map(str, range(20)), "after"} <= set(await rows(url))


async def test_an_asynchronous_standby_does_not_delay_commits(start_postgres: StartPostgres) -> None:
    primary = with_rows(start_postgres())
    standby = primary.standby(synchronous=False)
    standby.freeze()
    await insert(primary.url("rows"), "1")
    standby.thaw()
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await insert(standby.url("rows"), "2")


# -- PgBouncer


async def test_clients_of_pgbouncer_share_a_connection_between_transactions(own: Postgres) -> None:
    bouncer = PgBouncer.start(own, default_pool_size=1)
    url = bouncer.url("rows")
    backend = "SELECT pg_backend_pid()"
    async with (
        connected(url, statement_cache_size=0) as one,
        connected(url, statement_cache_size=0) as other,
    ):
        async with one.transaction():
            backend_of_one = await one.fetchval(backend)
            query = asyncio.create_task(other.fetchval(backend))
            assert await is_waiting(query)
        assert await query == backend_of_one
        bouncer.stop()
        with pytest.raises(LOST):
            await one.execute("SELECT 1")
    bouncer.start_again()
    bouncer.freeze()
    connecting = asyncio.create_task(insert(url, "through PgBouncer", statement_cache_size=0))
    assert await is_waiting(connecting)
    bouncer.thaw()
    await connecting
    bouncer.kill()
    assert "through PgBouncer" in await rows(own.url("rows"))


# -- clean-up


def segments() -> set[str]:
    """Return the ids of the machine's segments of shared memory."""
    lines = Path("/proc/sysvipc/shm").read_text("ascii").splitlines()
    return {line.split()[1] for line in lines}


def test_nothing_remains_if_the_tests_are_killed() -> None:
    program = """
import sys
from tests.postgres.pgbouncer import PgBouncer
from tests.postgres.server import Postgres

primary = Postgres.start()
PgBouncer.start(primary)
primary.standby().kill()
primary.freeze()
print(primary.home.path, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as tests:
        assert tests.stdout
        home = Path(tests.stdout.readline().strip())
        ids = {file.read_text().splitlines()[6].split()[1] for file in home.glob("*/postmaster.pid")}
        assert len(ids) == 2
        assert ids <= segments()
        assert len(processes_in(home)) > 3
        tests.kill()
    give_up = time.monotonic() + WAIT_MAX_S
    while home.exists():
        assert time.monotonic() < give_up, "The guard did not remove the directory."
        time.sleep(0.1)
    assert processes_in(home) == []
    assert not ids & segments()


def test_a_server_that_does_not_start_reports_why_and_leaves_nothing() -> None:
    with pytest.raises(AssertionError, match='unrecognized configuration parameter "colour"') as failure:
        Postgres.start(colour="blue")
    home = re.findall(r"/[^ \"]*postgres-\w+", str(failure.value))[0]
    assert not Path(home).exists()


@pytest.mark.parametrize(
    ("module", "name", "value", "program", "package"),
    [
        (server, "INSTALLED", Path("/nowhere"), lambda: server.program("initdb"), "postgresql"),
        (processes, "USER", "no-such-user", processes.user, "postgresql"),
        (pgbouncer, "PATH", "/nowhere", pgbouncer.program, "pgbouncer"),
    ],
)
def test_a_missing_package_is_named(
    module: ModuleType,
    name: str,
    value: object,
    program: Callable[[], object],
    package: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(module, name, value)
    with pytest.raises(AssertionError, match=f"is missing: install Debian's package {package}"):
        program()
