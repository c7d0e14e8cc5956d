"""`alipayhk-gateway ledger` on a PostgreSQL ledger: effects, output and exit statuses."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.commands.cli import main
from service.commands.exit_codes import EX_CONFIG, EX_UNAVAILABLE, EX_USAGE
from service.ledger import Ledger
from service.ledger.opening import fault_of
from service.ledger.postgres import opening
from tests.ledger.levels import IN_DOUBT, NOW_MS, a_bind, ended, granted, sqlite_url
from tests.ledger.on_server import PATIENT_S, OnServer, has_no_secret
from tests.ports import free_port

Run = Callable[..., Any]
NEWEST = "1970-01-01T00:16:40.000+00:00"
"""The time of the last change of the requests of these tests."""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "FAULT_TIMEOUT_S", PATIENT_S)


@pytest.fixture
def run(on_server: OnServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command line on the ledger of this test and returns its output."""

    def run(*words: str | Path, status: int = 0, url: str | None = None, key: Path | None = None) -> Any:
        monkeypatch.setenv("ALIPAYHK_LEDGER_URL", url or on_server.url)
        monkeypatch.setenv("ALIPAYHK_LEDGER_KEY_FILE", str(key or on_server.key))
        ended_with = main(["ledger", *map(str, words)])
        said = capsys.readouterr()
        assert ended_with == status, said
        has_no_secret(said.out + said.err, on_server.server)
        return json.loads(said.out) if "--json" in words else said.out + said.err

    return run


def on(on_server: OnServer, *steps: Callable[[Ledger], Awaitable[object]]) -> None:
    """Run steps on the ledger, and close it."""

    async def do() -> None:
        ledger = on_server.open()
        for step in steps:
            await step(ledger)
        await ledger.close()

    asyncio.run(do())


def applied(request_id: str) -> Callable[[Ledger], Awaitable[object]]:
    return lambda ledger: ended(ledger, a_bind(request_id))


def is_refused(on_server: OnServer) -> bool:
    return fault_of(on_server.url, on_server.key) is not None


# -- migrate


def test_migrate_creates_the_tables_and_can_be_repeated(run: Run, on_server: OnServer) -> None:
    lines = [run("migrate"), run("migrate")]
    versions = [f"have version 1, and had version {before} before\n" for before in (0, 1)]
    assert lines == [f"the tables of {on_server.where} {version}" for version in versions]
    assert on_server.sql("SELECT count(*) FROM alipayhk_meta") == "0"
    on(on_server, applied("id-1"))
    assert run("migrate", "--json") == {
        "ledger": on_server.where,
        "version_before": 1,
        "version": 1,
        "granted": None,
    }
    on(on_server, applied("id-2"))


@pytest.mark.parametrize("name", ["plain", 'Odd "name"; $$', "{brace}"])
def test_migrate_lets_a_user_use_the_tables(run: Run, on_server: OnServer, name: str) -> None:
    role = f"{name} {on_server.database}"
    quoted = '"{}"'.format(role.replace('"', '""'))
    on_server.sql(f"CREATE ROLE {quoted} LOGIN")
    for _ in range(2):
        assert f"{role} may use them" in run("migrate", "--grant", role)
    on_server.sql(f"SET ROLE {quoted}; SELECT * FROM alipayhk_request; SELECT alipayhk_export()")
    on_server.sql(f"DROP OWNED BY {quoted}; DROP ROLE {quoted}")


def test_migrate_for_an_unknown_user_changes_nothing(run: Run, on_server: OnServer) -> None:
    said = run("migrate", "--grant", "nobody-knows", status=EX_CONFIG)
    assert "--grant must name a user of the database server" in said
    assert on_server.sql("SELECT to_regclass('alipayhk_schema')") == ""


def test_migrate_needs_no_key(run: Run, on_server: OnServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIPAYHK_LEDGER_URL", on_server.url)
    monkeypatch.delenv("ALIPAYHK_LEDGER_KEY_FILE", raising=False)
    assert main(["ledger", "migrate"]) == 0


def test_migrate_of_a_newer_schema_changes_nothing(run: Run, on_server: OnServer) -> None:
    run("migrate")
    on_server.sql("UPDATE alipayhk_schema SET version = 1000")
    assert "is version 1000, newer than this gateway's 1" in run("migrate", status=EX_CONFIG)
    assert on_server.sql("SELECT version FROM alipayhk_schema") == "1000"


def test_migrate_of_a_ledger_in_a_file_is_not_needed(run: Run, tmp_path: Path) -> None:
    said = run("migrate", status=1, url=sqlite_url(tmp_path))
    assert "the schema of a ledger in a file is migrated when a gateway opens it" in said
    assert not (tmp_path / "ledger.db").exists()


# -- init


def test_init_creates_a_ledger_that_serve_opens(run: Run, on_server: OnServer) -> None:
    made = run("init", "--json")
    assert re.fullmatch("[0-9a-f]{8}", made.pop("key_id"))
    assert made == {
        "ledger": on_server.where,
        "ledger_id": on_server.sql("SELECT ledger_id FROM alipayhk_meta"),
        "marker": str(on_server.marker),
    }
    assert on_server.entries() == {made["ledger_id"]: 0}
    on(on_server, applied("id-1"))


def test_init_after_migrate(run: Run, on_server: OnServer) -> None:
    run("migrate")
    assert run("init") == f"created the ledger {on_server.where} without earlier requests\n"


def test_init_does_not_change_an_existing_ledger(run: Run, on_server: OnServer) -> None:
    on(on_server, applied("id-1"))
    before = on_server.entries()
    for words in (("init",), ("init", "--new")):
        assert f"there is a ledger {on_server.where} already" in run(*words, status=1)
    assert on_server.entries() == before


def test_init_for_a_key_that_has_had_a_ledger_needs_the_new_flag(run: Run, on_server: OnServer) -> None:
    on(on_server, applied("id-1"))
    dumped = on_server.dump()
    on_server.empty()
    said = run("init", status=EX_CONFIG)
    assert (
        f"{on_server.marker} shows that this key has had a ledger: restore a backup with: pg_restore"
        in said
    )
    assert "init --new" in said
    made = run("init", "--new", "--json")
    assert list(on_server.entries()) == [made["ledger_id"]]
    on(on_server, applied("id-1"))
    # The lost ledger must be refused: it does not know the requests of the new one.
    on_server.empty()
    on_server.sql(dumped)
    assert is_refused(on_server)


def test_init_with_a_key_whose_directory_cannot_be_written(run: Run, on_server: OnServer) -> None:
    """The marker's path is a directory here, which has the same effect as a read-only Secret."""
    on_server.marker.with_name(f"{on_server.marker.name}.new").mkdir()
    said = run("init")
    assert "cannot be written (Is a directory): an older copy of this ledger would be accepted" in said
    assert not is_refused(on_server)


# -- backup


def test_backup_names_the_tool_of_the_server(run: Run, on_server: OnServer, tmp_path: Path) -> None:
    on(on_server, applied("id-1"))
    said = run("backup", tmp_path / "copy", status=EX_USAGE)
    assert said == (
        f"alipayhk-gateway: back up {on_server.where} with pg_dump, or with the server's own backups\n"
    )
    assert not (tmp_path / "copy").exists()


# -- restore


def test_restored_backup_is_refused_until_it_is_accepted(run: Run, on_server: OnServer) -> None:
    on(on_server, applied("id-1"), lambda ledger: granted(ledger, a_bind("flying", lease_ms=0)))
    dumped = on_server.dump()
    on(on_server, applied("id-2"))
    on_server.empty()
    on_server.sql(dumped)
    assert is_refused(on_server)
    said = run("restore")
    assert f"the ledger {on_server.where} has 2 requests, 1 of them in doubt" in said
    assert f"it does not know the request ids that were first used between {NEWEST} and " in said
    assert "ask AlipayHK about each BindAccount of that time before sending it again" in said
    assert not is_refused(on_server)
    restored = run("restore", "--json")
    assert restored["unknown_from"] == NEWEST
    assert restored["unknown_until"] > NEWEST
    assert (restored["requests"], restored["in_doubt"]) == (2, 1)
    assert list(on_server.entries()) == [restored["ledger_id"]]
    on(on_server, applied("id-2"))


def another_host(on_server: OnServer, directory: Path) -> OnServer:
    """Return the same database as another host has it, with its own copy of the key."""
    directory.mkdir()
    return replace(on_server, key=Path(shutil.copy(on_server.key, directory)))


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_restore_on_one_host_is_accepted_by_the_others(
    run: Run, on_server: OnServer, tmp_path: Path, times: int
) -> None:
    other = another_host(on_server, tmp_path / "other")
    on(on_server, applied("id-1"))
    dumped = on_server.dump()
    on(other, applied("id-2"))
    newer = on_server.dump()
    for _ in range(times):
        on_server.empty()
        on_server.sql(dumped)
        assert is_refused(other)
        restored = run("restore", "--json")
        on(other, applied("id-2"))
    assert list(other.entries()) == [restored["ledger_id"]]
    # What was replaced cannot come back, and an older copy of what is there now neither.
    accepted = on_server.dump()
    on(other, applied("id-3"))
    for lost in (newer, accepted):
        on_server.empty()
        on_server.sql(lost)
        assert is_refused(other)


def test_restore_is_not_accepted_for_another_database(
    run: Run, on_server: OnServer, tmp_path: Path
) -> None:
    other = another_host(on_server, tmp_path / "other")
    on(on_server, applied("id-1"))
    on(other, applied("id-2"))
    run("restore")
    elsewhere = json.loads(other.marker.read_bytes())
    for entry in elsewhere["ledgers"].values():
        entry["ledger"] = "postgresql://elsewhere/ledger"
    other.marker.write_text(json.dumps(elsewhere))
    assert is_refused(other)


def test_ledger_that_is_started_anew_on_one_host_is_accepted_by_the_others(
    run: Run, on_server: OnServer, tmp_path: Path
) -> None:
    other = another_host(on_server, tmp_path / "other")
    on(on_server, applied("id-1"))
    on(other, applied("id-2"))
    on_server.empty()
    assert is_refused(other)
    made = run("init", "--new", "--json")
    on(other, applied("id-1"))
    assert list(other.entries()) == [made["ledger_id"]]


def test_restore_of_a_file_names_the_tool_of_the_server(run: Run, on_server: OnServer) -> None:
    on(on_server, applied("id-1"))
    before = on_server.entries()
    assert "pg_restore" in run("restore", "backup.dump", status=EX_USAGE)
    assert on_server.entries() == before


def test_restore_without_a_ledger_to_accept_changes_nothing(run: Run, on_server: OnServer) -> None:
    said = run("restore", status=EX_CONFIG)
    assert f"there is no ledger {on_server.where}: the database is empty" in said
    assert not on_server.marker.exists()


def test_restore_of_the_ledger_of_another_key_changes_nothing(
    run: Run, on_server: OnServer, tmp_path: Path
) -> None:
    on(on_server, applied("id-1"))
    before = on_server.sql("SELECT ledger_id FROM alipayhk_meta")
    (tmp_path / "other").mkdir()
    other = replace(on_server, key=tmp_path / "other" / "ledger.key")
    other.key.write_bytes(b"A" * 43 + b"=")
    assert "was created with another key" in run("restore", status=EX_CONFIG, key=other.key)
    assert on_server.sql("SELECT ledger_id FROM alipayhk_meta") == before


def test_restore_with_a_damaged_marker_writes_it_again(run: Run, on_server: OnServer) -> None:
    on(on_server, applied("id-1"))
    on_server.marker.write_text("{")
    assert is_refused(on_server)
    restored = run("restore", "--json")
    assert list(on_server.entries()) == [restored["ledger_id"]]


# -- requests


@pytest.fixture
def three(on_server: OnServer) -> None:
    """Prepare one applied request, one in doubt, and one with an expired lease."""
    on(
        on_server,
        applied("applied"),
        lambda ledger: ended(ledger, a_bind("doubt"), IN_DOUBT, NOW_MS + 1),
        lambda ledger: granted(ledger, a_bind("over", lease_ms=0), NOW_MS + 2),
    )


def test_list_and_show(run: Run, three: None, on_server: OnServer) -> None:
    *lines, last = run("list").splitlines()
    assert [line.split()[5] for line in lines] == ["applied", "doubt", "over"]
    assert last == f"3 requests in {on_server.where}"
    in_doubt = run("list", "--in-doubt", "--json")["requests"]
    assert [(row["request_id"], row["state"]) for row in in_doubt] == [
        ("doubt", "in_doubt"),
        ("over", "in_doubt"),
    ]
    (shown,) = run("show", "applied", "--json")["requests"]
    assert shown == {
        "client_id": "client-1",
        "api": "BindAccount",
        "request_id": "applied",
        "caller": "loyalty",
        "state": "applied",
        "attempts": 1,
        "biz_time": None,
        "created": NEWEST,
        "updated": NEWEST,
        "change": 2,
        "result_status": "S",
        "result_code": "SUCCESS",
        "resolved": None,
    }
    for absent in ("absent", "é", "\udcff"):
        assert "no request has this id" in run("show", absent, status=1)


@pytest.mark.parametrize("request_id", ["doubt", "over"])
def test_resolve_records_the_decision_and_its_audit(run: Run, three: None, request_id: str) -> None:
    words = ("resolve", request_id, "--applied", "--reason", "ticket 7", "--who", "ann")
    (shown,) = run(*words, "--json")["requests"]
    assert shown["state"] == "applied"
    assert (shown["resolved"]["who"], shown["resolved"]["why"]) == ("ann", "ticket 7")
    assert "this request is not in doubt: state applied since" in run(*words, status=1)
    assert "resolved who: ann\n" in run("show", request_id)


def test_resolve_of_a_request_in_progress_says_until_when(run: Run, on_server: OnServer) -> None:
    on(on_server, lambda ledger: granted(ledger, a_bind("held", lease_ms=60_000)))
    said = run("resolve", "held", "--applied", "--reason", "asked", status=1)
    assert re.search(r"this request is in progress until 20\S+: try again then", said)


def test_export_continues_after_a_change(run: Run, three: None, on_server: OnServer) -> None:
    def exported(*words: str) -> list[Any]:
        return [json.loads(line) for line in run("export", *words).splitlines()]

    since = exported("--since", "1970-01-01T00:16:40.001")
    assert [row["request_id"] for row in since] == ["doubt", "over"]
    last = exported("--since", "1970-01-01")[-1]["change"]
    assert exported("--after", str(last)) == []
    on(on_server, applied("later"))
    (later,) = exported("--after", str(last))
    assert (later["request_id"], later["change"]) == ("later", last + 2)
    assert exported("--after", str(2**63 - 1)) == []
    assert exported("--since", "9999-12-31") == []


# -- ledgers that cannot be used

REQUESTS = [
    *(("list",), ("show", "id-1"), ("export", "--after", "0")),
    ("resolve", "id-1", "--applied", "--reason", "asked"),
]
EVERY = [*REQUESTS, ("migrate",), ("init",), ("restore",)]


def test_server_that_is_gone_is_unavailable(run: Run, on_server: OnServer) -> None:
    url = on_server.url.replace(str(on_server.server.port), str(free_port()))
    for words in EVERY:
        assert "cannot be reached: ConnectionRefusedError" in run(*words, status=EX_UNAVAILABLE, url=url)


def test_wrong_password_is_bad_configuration(run: Run, on_server: OnServer) -> None:
    url = on_server.url.replace("%3A", "", 1)
    for words in EVERY:
        assert "the server refuses this user or password" in run(*words, status=EX_CONFIG, url=url)


def test_missing_ledger_is_bad_configuration_and_is_not_created(run: Run, on_server: OnServer) -> None:
    for words in REQUESTS:
        assert "there is no ledger" in run(*words, status=EX_CONFIG)
    assert on_server.sql("SELECT to_regclass('alipayhk_schema')") == ""


def test_unreadable_url_is_bad_configuration_that_is_not_repeated(run: Run, on_server: OnServer) -> None:
    url = f"postgresql://gateway:{on_server.server.password}@h/d"
    said = run("list", status=EX_CONFIG, url=url)
    assert "LEDGER_URL must be postgresql://user:password@host/database" in said
