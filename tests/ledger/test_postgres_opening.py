"""Opening a ledger on PostgreSQL: what creates it, what it accepts, and the sentences of its refusals."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.ledger import Known, LedgerFault, LedgerUnavailable
from service.ledger.marker import Marker
from service.ledger.opening import fault_of
from service.ledger.postgres import opening
from service.ledger.postgres.administration import accept, create_first, migrate_schema
from service.ledger.postgres.database import Server
from service.ledger.postgres.opening import inspect, place_of
from service.ledger.postgres.statements import MIGRATIONS, TABLES
from service.ledger.vault import make_key_file
from tests.ledger.levels import APPLIED, NOW_MS, a_bind, a_claim, ended, granted, opened, the_row
from tests.ledger.on_server import PATIENT_S, OnServer, eventually, every_operation, has_no_secret, used
from tests.ledger.processes import ROOT, output_of, started

DISCONNECT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "FAULT_TIMEOUT_S", PATIENT_S)


def ledgers(on_server: OnServer) -> int:
    """Return how many ledgers the database has; 0 also if it has no tables."""
    if on_server.sql("SELECT to_regclass('alipayhk_meta')") == "":
        return 0
    return int(on_server.sql("SELECT count(*) FROM alipayhk_meta"))


def a_key(directory: Path) -> Path:
    directory.mkdir()
    make_key_file(directory / "ledger.key", random_bytes=os.urandom)
    return directory / "ledger.key"


# -- a database that is replaced while gateways run


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE alipayhk_meta SET ledger_id = 'another'",
        "SELECT setval('alipayhk_token', 2)",
        "DELETE FROM alipayhk_meta",
    ],
    ids=["another ledger", "an older copy", "no ledger"],
)
async def test_running_gateway_uses_no_other_ledger_at_its_place(on_server: OnServer, change: str) -> None:
    ledger = on_server.open()
    for number in range(3):
        await ended(ledger, a_bind(f"id-{number}"))
    on_server.sql(f"{change}; {DISCONNECT}")
    for _ in range(2):  # the first error may be that of the connection that was closed
        with pytest.raises(LedgerUnavailable) as unavailable:
            await ledger.claim(a_bind("later"), NOW_MS)
    assert "LedgerReplaced" in str(unavailable.value)
    assert on_server.sql("SELECT count(*) FROM alipayhk_request") == "3"
    await ledger.close()


async def test_running_gateway_uses_its_ledger_after_a_restore(on_server: OnServer) -> None:
    ledger = on_server.open()
    await ended(ledger, a_bind("id-1"))
    await accept(place_of(on_server.url, on_server.key, PATIENT_S), os.urandom)
    on_server.sql(DISCONNECT)
    assert await eventually(lambda: ledger.look(a_bind("id-1"), NOW_MS)) == Known(APPLIED)
    await ledger.close()


# -- creation


async def test_first_start_creates_a_ledger_and_its_marker(on_server: OnServer) -> None:
    assert fault_of(on_server.url, on_server.key) is None
    assert ledgers(on_server) == 0
    await used(on_server.open(), "id-1")
    assert ledgers(on_server) == 1
    assert list(on_server.entries().values()) == [1]


async def test_ledger_keeps_its_rows_across_a_restart(on_server: OnServer) -> None:
    ledger = on_server.open()
    token = await ended(ledger, a_claim())
    row = await the_row(ledger, a_claim())
    await ledger.close()
    again = on_server.open()
    found = await the_row(again, a_claim())
    assert replace(found, lease_until_ms=row.lease_until_ms) == row  # that depends on this clock
    assert await granted(again, a_claim("id-2", linkage=None)) == token + 1
    await again.close()


@pytest.mark.parametrize("table", TABLES)
async def test_ledger_without_one_of_its_tables_is_refused(on_server: OnServer, table: str) -> None:
    await used(on_server.open(), "id-1")
    on_server.sql(f"DROP TABLE {table} CASCADE")
    if table == "alipayhk_schema":
        fault = f"the ledger {on_server.where} is an empty database"
    else:
        fault = f"the ledger {on_server.where} has lost its tables {table}: put a backup back: pg_restore"
    assert str(fault_of(on_server.url, on_server.key)).startswith(fault)
    with pytest.raises(LedgerFault, match=re.escape(fault)):
        on_server.open()


def test_missing_ledger_is_not_created_without_create(on_server: OnServer) -> None:
    with pytest.raises(LedgerFault, match=f"there is no ledger {on_server.where}: the database is empty"):
        on_server.open(create=False)
    assert ledgers(on_server) == 0


@pytest.mark.parametrize("starts", [2, 8])
@pytest.mark.parametrize("hosts", ["one host", "many hosts"])
def test_concurrent_starts_create_one_ledger(
    on_server: OnServer, tmp_path: Path, starts: int, hosts: str
) -> None:
    """Gateways on many hosts have the same key, and a marker each."""
    each = []
    for number in range(starts):
        key = on_server.key if hosts == "one host" else tmp_path / str(number) / "ledger.key"
        key.parent.mkdir(exist_ok=True)
        key.write_bytes(on_server.key.read_bytes())
        each.append(replace(on_server, key=key))
    with ThreadPoolExecutor(starts) as threads:
        for ledger in list(threads.map(OnServer.open, each)):
            asyncio.run(ledger.close())
    assert ledgers(on_server) == 1
    ids = on_server.sql("SELECT ledger_id FROM alipayhk_meta").split()
    assert [list(one.entries()) for one in each] == [ids] * starts


def test_of_concurrent_starts_with_different_keys_one_creates_a_ledger(
    on_server: OnServer, tmp_path: Path
) -> None:
    def start(each: OnServer) -> str:
        try:
            asyncio.run(each.open().close())
        except LedgerFault as fault:
            return str(fault)
        return "opened"

    with ThreadPoolExecutor(2) as threads:
        said = list(threads.map(start, [on_server, replace(on_server, key=a_key(tmp_path / "other"))]))
    said.remove("opened")
    assert f"the ledger {on_server.where} was created with another key" in said[0]
    assert ledgers(on_server) == 1


async def test_tables_of_another_program_are_left_alone(on_server: OnServer) -> None:
    on_server.sql("CREATE TABLE request (title text); INSERT INTO request VALUES ('mine')")
    assert fault_of(on_server.url, on_server.key) is None
    await used(on_server.open(), "id-1")
    assert on_server.sql("SELECT * FROM request") == "mine"


async def test_names_with_odd_characters_can_be_used(on_server: OnServer) -> None:
    on_server.server.create_database("a b/c%")
    url = on_server.url.replace(on_server.database, "a%20b%2Fc%25")
    await used(on_server.open(url), "id-1")
    assert list(on_server.entries().values()) == [1]


# -- the marker


async def test_empty_database_of_a_key_that_has_had_a_ledger_is_refused(on_server: OnServer) -> None:
    await used(on_server.open(), "id-1")
    on_server.empty()
    assert on_server.refusal() == (
        f"the ledger {on_server.where} is an empty database, and {on_server.marker} shows that its key "
        "has had one: put it back, restore a backup with: pg_restore, and then: alipayhk-gateway ledger "
        "restore, or, if losing its records is acceptable, start a new one for this key with: "
        "alipayhk-gateway ledger init --new"
    )
    assert ledgers(on_server) == 0


async def test_migrated_database_without_a_ledger_is_empty(on_server: OnServer) -> None:
    await used(on_server.open())
    on_server.sql("DELETE FROM alipayhk_meta")
    assert "is an empty database" in on_server.refusal()


async def test_new_ledger_needs_a_marker_that_can_be_written(on_server: OnServer) -> None:
    """The marker's path is a directory here, which has the same effect as a read-only Secret."""
    on_server.marker.with_name(f"{on_server.marker.name}.new").mkdir()
    with pytest.raises(LedgerFault) as refused:
        on_server.open()
    assert str(refused.value) == (
        f"the ledger {on_server.where} is an empty database, and it is unknown whether its key has had "
        f"one, because {on_server.marker} cannot be written (Is a directory): restore a backup with: "
        "pg_restore, and then: alipayhk-gateway ledger restore, or, before the very first start, create it "
        "once with: alipayhk-gateway ledger init"
    )
    assert ledgers(on_server) == 0
    place = place_of(on_server.url, on_server.key, PATIENT_S)
    created = await create_first(place, os.urandom, is_new=False)
    assert created is not None
    assert created.marker_fault == "Is a directory"
    await used(on_server.open(), "id-1")


def test_user_who_cannot_write_the_marker_gets_the_same_refusal_from_config_check(
    on_server: OnServer,
) -> None:
    # Not under pytest's directory, which other users cannot read.
    directory = Path(tempfile.mkdtemp())
    try:
        key = Path(shutil.copy(on_server.key, directory))
        key.chmod(0o444)
        directory.chmod(0o555)
        ((sentence, checked),) = output_of(started("refuse_as_nobody", key, on_server.url))
    finally:
        directory.chmod(0o755)
        shutil.rmtree(directory)
    assert checked == sentence
    assert f"because {key}.ledgers cannot be written: restore" in sentence
    assert ledgers(on_server) == 0


async def test_lost_marker_is_written_again(on_server: OnServer) -> None:
    await used(on_server.open(), "id-1")
    before = on_server.entries()
    on_server.marker.unlink()
    assert fault_of(on_server.url, on_server.key) is None
    await used(on_server.open())
    assert on_server.entries() == before


async def test_damaged_marker_is_refused(on_server: OnServer) -> None:
    await used(on_server.open(), "id-1")
    on_server.marker.write_text("{")
    assert f"{on_server.marker} is damaged" in on_server.refusal()


async def test_marker_gets_the_highest_of_concurrent_tokens(on_server: OnServer) -> None:
    ledger = on_server.open()
    await asyncio.gather(*(ledger.claim(a_bind(f"id-{number}"), NOW_MS) for number in range(50)))
    await ledger.close()
    assert list(on_server.entries().values()) == [50]


# -- keys


async def test_another_key_is_refused(on_server: OnServer, tmp_path: Path) -> None:
    await used(on_server.open(), "id-1")
    other = replace(on_server, key=a_key(tmp_path / "other"))
    assert f"the ledger {on_server.where} was created with another key (its id is " in other.refusal()


def test_missing_key_is_refused(on_server: OnServer) -> None:
    on_server.key.unlink()
    assert f"{on_server.key} cannot be read" in on_server.refusal()
    for action in (lambda: opened(on_server.url), lambda: fault_of(on_server.url, None)):
        try:
            said = action()
        except LedgerFault as fault:
            said = str(fault)
        assert said == "LEDGER_KEY_FILE is missing: all gateways that share a ledger need the same key"


# -- older copies


def template(on_server: OnServer) -> Callable[[], object]:
    """Copy the files, as a snapshot does; return what puts the copy in place."""
    on_server.server.create_database(f"{on_server.database}_copy", on_server.database)
    return lambda: on_server.replace(f"{on_server.database}_copy")


def pg_dump(on_server: OnServer) -> Callable[[], object]:
    """Make a backup; return what restores it."""
    dumped = on_server.dump()

    def restore() -> None:
        on_server.empty()
        on_server.sql(dumped)

    return restore


async def test_ledger_that_moves_on_while_it_is_examined_is_no_older_copy(
    on_server: OnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await used(on_server.open(), "id-1")

    async def inspected(server: Server, where: str) -> object:
        found = await inspect(server, where)
        on_server.sql("SELECT setval('alipayhk_token', 9)")
        Marker(on_server.key).change(
            lambda entries: {one: replace(entry, token=9) for one, entry in entries.items()}
        )
        return found

    monkeypatch.setattr(opening, "inspect", inspected)
    assert opening.fault_of(on_server.url, on_server.key) is None
    assert list(on_server.entries().values()) == [9]
    await on_server.open().close()


@pytest.mark.parametrize("copy", [template, pg_dump])
async def test_older_copy_is_refused_until_it_is_accepted(
    on_server: OnServer, copy: Callable[[OnServer], Callable[[], object]]
) -> None:
    await used(on_server.open(), "id-1")
    restore = copy(on_server)
    ledger = on_server.open()
    tokens = [await ended(ledger, a_bind(f"later-{number}")) for number in range(3)]
    changes = [row.change async for row in ledger.rows()]
    await ledger.close()
    (before,) = on_server.entries()
    restore()
    assert on_server.refusal() == (
        f"the ledger {on_server.where} is an older copy: its last token is 1, but {on_server.marker} "
        "records 4: put the newer one back, or accept the present one with: alipayhk-gateway ledger restore"
    )
    accepted = await accept(place_of(on_server.url, on_server.key, PATIENT_S), os.urandom)
    assert (accepted.requests, accepted.in_doubt, accepted.newest_ms) == (1, 0, NOW_MS)
    assert accepted.marker_fault == ""
    assert accepted.ledger_id != before
    again = on_server.open()
    assert list(on_server.entries()) == [accepted.ledger_id]
    assert await again.claim(a_bind("id-1"), NOW_MS) == Known(APPLIED)
    assert await ended(again, a_bind("later-0")) > max(tokens) + 10**9
    rows = [row.change async for row in again.rows(after=max(changes))]
    assert len(rows) == 1
    assert rows[0] > max(changes) + 10**9
    await again.close()


async def test_ledger_that_was_replaced_by_a_restored_one_is_refused(on_server: OnServer) -> None:
    await used(on_server.open(), "id-1")
    restore = template(on_server)
    await used(on_server.open(), "id-2")
    restore()
    await accept(place_of(on_server.url, on_server.key, PATIENT_S), os.urandom)
    await used(on_server.open(), *(f"later-{number}" for number in range(5)))
    restore()
    assert f"the ledger {on_server.where} is not listed in {on_server.marker}" in on_server.refusal()


async def test_newer_schema_is_refused(on_server: OnServer) -> None:
    await used(on_server.open())
    on_server.sql("UPDATE alipayhk_schema SET version = 1000")
    assert on_server.refusal() == (
        f"the schema of the ledger {on_server.where} is version 1000, newer than this gateway's 1: run the "
        "version of the gateway that wrote it"
    )


@pytest.mark.parametrize("way", ["two starts at once", "ledger migrate", "a new database"])
async def test_older_schema_is_migrated_once_and_keeps_its_rows(
    on_server: OnServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way != "a new database":
        await used(on_server.open(), "id-1")
    second = tmp_path / "schema_2.sql"
    second.write_text("CREATE TABLE alipayhk_second ()")  # fails if it is executed twice
    with monkeypatch.context() as newer:
        newer.setattr(opening, "MIGRATIONS", (*MIGRATIONS, second))
        if way == "ledger migrate":
            done = await migrate_schema(on_server.url, None, PATIENT_S)
            assert (done.before, done.after) == (1, 2)
        if way == "a new database":
            await used(on_server.open(), "id-1")
        with ThreadPoolExecutor(2) as threads:
            for ledger in list(threads.map(OnServer.open, [on_server] * 2)):
                assert await ledger.claim(a_bind("id-1"), NOW_MS) == Known(APPLIED)
                await ledger.close()
        assert (await migrate_schema(on_server.url, None, PATIENT_S)).before == 2
    assert on_server.sql("SELECT count(*) FROM alipayhk_second") == "0"
    assert "is version 2, newer than this gateway's 1: run the version" in on_server.refusal()


# -- permissions


def as_reader(on_server: OnServer) -> str:
    """Create a user who may not create tables; return its URL."""
    name = f"reader_{on_server.database}"
    on_server.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{on_server.server.password}'")
    return on_server.url.replace("//gateway:", f"//{name}:")


@pytest.fixture
def drop_reader(on_server: OnServer) -> Any:
    yield
    on_server.sql(f"DROP OWNED BY reader_{on_server.database}; DROP ROLE reader_{on_server.database}")


HARDENED = """
    REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT ALL ON SCHEMA public TO gateway;
    ALTER DEFAULT PRIVILEGES FOR ROLE gateway REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
"""


@pytest.mark.parametrize("prepare", ["", HARDENED], ids=["default", "hardened"])
async def test_user_who_may_not_create_tables_can_use_those_of_ledger_migrate(
    on_server: OnServer, drop_reader: None, prepare: str
) -> None:
    on_server.sql(prepare)
    url = as_reader(on_server)
    sentence = (
        f"the ledger {on_server.where} cannot be used: this user may not create or use the ledger's "
        "tables: run, as a user who may create them: alipayhk-gateway ledger migrate --grant USER"
    )
    assert on_server.refusal(url) == sentence
    await migrate_schema(on_server.url, None, PATIENT_S)
    assert on_server.refusal(url) == sentence
    await migrate_schema(on_server.url, f"reader_{on_server.database}", PATIENT_S)
    assert fault_of(url, on_server.key) is None
    ledger = on_server.open(url)
    await every_operation(ledger)
    await ledger.close()
    await accept(place_of(url, on_server.key, PATIENT_S), os.urandom)
    await used(on_server.open(url))


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
async def test_isolation_that_would_hide_the_claims_of_others_is_refused(
    on_server: OnServer, isolation: str
) -> None:
    ledger = on_server.open()
    on_server.sql(f"ALTER DATABASE {on_server.database} SET default_transaction_isolation = '{isolation}'")
    assert on_server.refusal() == (
        f"the ledger {on_server.where} cannot be used: its transactions are {isolation}: set "
        "default_transaction_isolation to 'read committed' for this user in this database"
    )
    # A gateway that was started before notices it, too.
    with pytest.raises(LedgerUnavailable, match="25000"):
        await ledger.claim(a_claim(), NOW_MS)
    await ledger.close()


# -- secrets, and the driver


async def test_password_is_in_no_representation(on_server: OnServer) -> None:
    ledger = on_server.open()
    await granted(ledger, a_claim())
    place = place_of(on_server.url, on_server.key, 1.0)
    for each in (place, ledger, ledger._database):
        has_no_secret(repr(each), on_server.server)
    await ledger.close()


def test_driver_is_imported_only_for_this_level(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, sys
from pathlib import Path
from service.commands import serve
from service.commands.ledger import ledger
from service.ledger.levels import LEVELS
from service.ledger import LedgerUnavailable
from service.ledger.opening import fault_of, open_ledger
opened, _ = open_ledger("sqlite:///{tmp_path}/ledger.db", None, random_bytes=os.urandom)
asyncio.run(opened.close())
assert "asyncpg" not in sys.modules
try:
    fault_of("postgresql://u:p@127.0.0.1:1/d", Path("{tmp_path}/ledger.db.key"))
except LedgerUnavailable:
    pass
assert "asyncpg" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
