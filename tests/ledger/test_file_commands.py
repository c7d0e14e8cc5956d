"""`ledger init`, `backup` and `restore`: their effect on files, output and exit statuses."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.commands.exit_codes import EX_CANTCREAT, EX_CONFIG, EX_UNAVAILABLE
from service.commands.ledger import files as ledger_files
from service.commands.ledger import requests as ledger_commands
from service.ledger import ClaimRejected, Known, Ledger, LedgerFault
from service.ledger.opening import fault_of
from service.ledger.vault import make_key_file
from tests.ledger.levels import (
    APPLIED,
    IN_DOUBT,
    LEASE_MS,
    NOW_MS,
    a_bind,
    ended,
    granted,
    opened,
    sqlite_url,
)
from tests.ledger.older import back_to_version

Run = Callable[..., Any]
NEWEST = "1970-01-01T00:16:40.000+00:00"
"""The time of the last change of the requests of these tests."""


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command line on the ledger of this test and returns its output."""

    def run(*words: str | Path, status: int = 0, url: str | None = None, key: Path | None = None) -> Any:
        parser = argparse.ArgumentParser()
        add_parser = ledger_commands.configure(parser, lambda added: None)
        ledger_files.configure(add_parser, lambda added: None)
        args = parser.parse_args([*map(str, words)])
        ended_with = ledger_files.run(args, url or sqlite_url(tmp_path), key)
        said = capsys.readouterr()
        assert ended_with == status, said
        return json.loads(said.out) if "--json" in words else said.out + said.err

    return run


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Return the path of the database."""
    return tmp_path / "ledger.db"


def on(directory: Path, *steps: Callable[[Ledger], Awaitable[object]]) -> None:
    """Run steps on the ledger, and close it cleanly."""

    async def do() -> None:
        ledger, _ = opened(sqlite_url(directory))
        for step in steps:
            await step(ledger)
        await ledger.close()

    asyncio.run(do())


def applied(request_id: str) -> Callable[[Ledger], Awaitable[object]]:
    return lambda ledger: ended(ledger, a_bind(request_id))


def ids_in(directory: Path) -> list[str]:
    """Return the request ids in the ledger."""
    ids: list[str] = []

    async def read(ledger: Ledger) -> None:
        ids.extend(sorted([row.key.request_id async for row in ledger.rows()]))

    on(directory, read)
    return ids


def is_refused(directory: Path) -> bool:
    return fault_of(sqlite_url(directory), None) is not None


# -- init


def test_init_creates_a_ledger_that_serve_opens(run: Run, tmp_path: Path, db: Path) -> None:
    made = run("init", "--json")
    assert made["ledger"] == str(db)
    assert made["marker"] == f"{db}.key.ledgers"
    assert list(json.loads(Path(made["marker"]).read_bytes())["ledgers"]) == [made["ledger_id"]]
    assert stat.S_IMODE(db.stat().st_mode) == 0o600
    assert not is_refused(tmp_path)
    assert ids_in(tmp_path) == []


def test_init_does_not_change_an_existing_ledger(run: Run, tmp_path: Path, db: Path) -> None:
    on(tmp_path, applied("id-1"))
    before = db.read_bytes()
    for words in (("init",), ("init", "--new")):
        assert f"there is a ledger {db} already" in run(*words, status=1)
    assert db.read_bytes() == before


@pytest.mark.parametrize("left", [None, b""], ids=["missing", "empty"])
def test_init_for_a_key_that_has_had_a_ledger_needs_the_new_flag(
    run: Run, tmp_path: Path, db: Path, left: bytes | None
) -> None:
    on(tmp_path, applied("id-1"))
    key, lost = (tmp_path / "ledger.db.key").read_bytes(), tmp_path / "lost.db"
    db.rename(lost)
    if left is not None:
        db.write_bytes(left)
    assert "init --new" in run("init", status=EX_CONFIG)
    run("init", "--new")
    assert (tmp_path / "ledger.db.key").read_bytes() == key
    assert ids_in(tmp_path) == []
    # The lost ledger must be refused: it does not know the requests of the new one.
    shutil.move(lost, db)
    assert is_refused(tmp_path)


def test_init_new_keeps_the_log_of_the_lost_ledger(run: Run, tmp_path: Path, db: Path) -> None:
    on(tmp_path, applied("id-1"))
    db.unlink()
    (tmp_path / "ledger.db-wal").write_bytes(b"log")
    assert "write-ahead log" in run("init", status=EX_CONFIG)
    (kept,) = run("init", "--new", "--json")["moved_aside"]
    assert Path(kept).read_bytes() == b"log"
    # SQLite finds the log if the lost database is put next to it, without the last suffix.
    assert re.fullmatch(r"ledger\.db\.before-[\dTZ.]+-wal", Path(kept).name)
    assert ids_in(tmp_path) == []


def test_init_with_a_key_whose_directory_cannot_be_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker's path is a directory here, which has the same effect as a read-only Secret."""
    (keys := tmp_path / "keys").mkdir()
    make_key_file(keys / "key", random_bytes=os.urandom)
    (keys / "key.ledgers.new").mkdir()
    made = run("init", "--json", key=keys / "key")
    assert made["marker"] is None
    (tmp_path / "ledger.db").unlink()
    said = run("init", key=keys / "key")
    assert "cannot be written (Is a directory): an older copy of this ledger would be accepted" in said
    assert fault_of(sqlite_url(tmp_path), keys / "key") is None


# -- backup


def test_backup_of_a_ledger_in_use_is_complete_and_can_be_opened(
    run: Run, tmp_path: Path, db: Path
) -> None:
    async def back_up_in_use(ledger: Ledger) -> None:
        await ended(ledger, a_bind("id-1"))
        await ended(ledger, a_bind("id-2"), IN_DOUBT)
        wrote = await asyncio.to_thread(run, "backup", tmp_path / "copy.db", "--json")
        assert (wrote["requests"], wrote["in_doubt"], wrote["last_token"]) == (2, 1, 2)

    on(tmp_path, back_up_in_use)
    copy = tmp_path / "copy.db"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert not list(tmp_path.glob("copy.db?*"))
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT run FROM meta").fetchone() == (None,)
    # Nothing was sent since the backup, so it is not older.
    copy.replace(db)
    assert ids_in(tmp_path) == ["id-1", "id-2"]


def test_backup_never_overwrites(run: Run, tmp_path: Path, db: Path) -> None:
    on(tmp_path, applied("id-1"))
    there = tmp_path / "there"
    there.write_text("mine")
    assert "exists already" in run("backup", there, status=EX_CANTCREAT)
    assert "exists already" in run("backup", db, status=EX_CANTCREAT)
    assert there.read_text() == "mine"


def test_backup_that_cannot_be_written_is_reported(run: Run, tmp_path: Path) -> None:
    on(tmp_path, applied("id-1"))
    said = run("backup", tmp_path / "absent" / "copy.db", status=EX_CANTCREAT)
    assert "copy.db cannot be written: No such file or directory" in said


def test_backup_of_a_refused_ledger_is_refused(run: Run, tmp_path: Path, db: Path) -> None:
    on(tmp_path, applied("id-1"))
    old = shutil.copy(db, tmp_path / "old.db")
    on(tmp_path, applied("id-2"))
    shutil.move(old, db)
    assert "is an older copy" in run("backup", tmp_path / "copy.db", status=EX_CONFIG)
    assert not (tmp_path / "copy.db").exists()


# -- restore


def test_backup_is_refused_when_copied_by_hand_and_accepted_when_restored(
    run: Run, tmp_path: Path, db: Path
) -> None:
    on(tmp_path, applied("id-1"))
    taken = run("backup", tmp_path / "copy.db", "--json")["taken"]
    on(tmp_path, applied("id-2"))
    present = db.rename(tmp_path / "present.db")
    shutil.copy(tmp_path / "copy.db", db)
    assert is_refused(tmp_path)
    restored = run("restore", tmp_path / "copy.db", "--json")
    assert (restored["requests"], restored["in_doubt"]) == (1, 0)
    assert restored["unknown_from"] == taken
    assert restored["unknown_until"] > taken
    assert ids_in(tmp_path) == ["id-1"]
    (aside,) = restored["moved_aside"]
    assert Path(aside).is_file()
    assert re.fullmatch(r"ledger\.db\.before-[\dTZ.]+", Path(aside).name)
    # Both the ledger that was in use before and the backup copied by hand must be refused.
    on(tmp_path, applied("id-3"), applied("id-4"))
    for other in (present, tmp_path / "copy.db"):
        shutil.copy(other, db)
        assert is_refused(tmp_path)


def test_ledger_restored_at_another_path_replaces_the_one_of_the_backup(run: Run, tmp_path: Path) -> None:
    on(tmp_path, applied("id-1"))
    run("backup", tmp_path / "copy.db")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run("restore", tmp_path / "copy.db", url=sqlite_url(elsewhere), key=tmp_path / "ledger.db.key")
    # Otherwise two ledgers would know the requests of the backup, and each would grant what the other sent.
    assert is_refused(tmp_path)


def test_restored_backup_does_not_resend_its_requests(run: Run, tmp_path: Path) -> None:
    async def claim(ledger: Ledger) -> None:
        assert await ledger.claim(a_bind("applied"), NOW_MS) == Known(APPLIED)
        assert await ledger.claim(a_bind("flying"), NOW_MS + LEASE_MS) is ClaimRejected.IN_DOUBT

    on(tmp_path, applied("applied"), lambda ledger: granted(ledger, a_bind("flying")))
    run("backup", tmp_path / "copy.db")
    (tmp_path / "ledger.db").unlink()
    assert run("restore", tmp_path / "copy.db", "--json")["in_doubt"] == 1
    on(tmp_path, claim)


def test_restore_without_a_file_accepts_the_present_file(run: Run, tmp_path: Path, db: Path) -> None:
    on(tmp_path, applied("id-1"))
    old = shutil.copy(db, tmp_path / "old.db")
    on(tmp_path, applied("id-2"))
    shutil.move(old, db)
    said = run("restore")
    assert f"the ledger {db} has 1 requests, 0 of them in doubt" in said
    assert f"it does not know the request ids that were first used between {NEWEST} and " in said
    assert not is_refused(tmp_path)
    assert ids_in(tmp_path) == ["id-1"]


def test_restore_of_the_ledgers_own_file_accepts_it(run: Run, tmp_path: Path, db: Path) -> None:
    on(tmp_path, applied("id-1"))
    (tmp_path / "ledger.db.key.ledgers").write_bytes(b"damaged")
    assert run("restore", db, "--json")["moved_aside"] == []
    assert ids_in(tmp_path) == ["id-1"]


def test_restore_keeps_a_log_that_belongs_to_another_file(run: Run, tmp_path: Path, db: Path) -> None:
    async def keep(ledger: Ledger) -> None:
        for number in range(3):
            await ended(ledger, a_bind(f"id-{number + 2}"))
        for name in ("ledger.db", "ledger.db-wal"):
            shutil.copy(tmp_path / name, tmp_path / f"{name}.live")

    on(tmp_path, applied("id-1"))
    old = shutil.copy(db, tmp_path / "old.db")
    on(tmp_path, keep)
    shutil.copy(old, db)
    log = (tmp_path / "ledger.db-wal.live").replace(tmp_path / "ledger.db-wal").read_bytes()
    assert is_refused(tmp_path)
    (aside,) = run("restore", "--json")["moved_aside"]
    assert Path(aside).read_bytes() == log
    assert ids_in(tmp_path) == ["id-1"]


def test_restore_of_a_copy_with_the_log_of_another_file_changes_nothing(
    run: Run, tmp_path: Path, db: Path
) -> None:
    async def keep_log(ledger: Ledger) -> None:
        await ended(ledger, a_bind("id-2"))
        shutil.copy(f"{db}-wal", tmp_path / "old.db-wal")

    on(tmp_path, applied("id-1"))
    old = shutil.copy(db, tmp_path / "old.db")
    on(tmp_path, keep_log)
    before = db.read_bytes()
    said = run("restore", old, status=EX_CONFIG)
    assert f"{old} and its write-ahead log {old}-wal do not belong together" in said
    assert db.read_bytes() == before


def test_restore_of_a_copy_with_its_log_includes_the_log(run: Run, tmp_path: Path) -> None:
    async def keep(ledger: Ledger) -> None:
        await ended(ledger, a_bind("id-1"))
        for ending in ("", "-wal"):
            shutil.copy(tmp_path / f"ledger.db{ending}", tmp_path / f"live.db{ending}")

    on(tmp_path, keep)
    assert run("restore", tmp_path / "live.db", "--json")["requests"] == 1
    assert ids_in(tmp_path) == ["id-1"]


def test_restore_of_a_backup_of_an_earlier_version(run: Run, tmp_path: Path, db: Path) -> None:
    on(tmp_path, applied("id-1"))
    back_to_version(2, db)
    old = shutil.copy(db, tmp_path / "old.db")
    on(tmp_path, applied("id-2"))
    run("restore", old)
    assert ids_in(tmp_path) == ["id-1"]


def test_restore_without_a_file_to_accept_names_the_way_out(run: Run, tmp_path: Path, db: Path) -> None:
    on(tmp_path, applied("id-1"))
    db.unlink()
    said = run("restore", status=EX_CONFIG)
    assert f"the ledger {db} is missing: name a backup that can be restored, or " in said
    said = run("restore", tmp_path / "absent.db", status=EX_CONFIG)
    assert f"the backup {tmp_path}/absent.db is missing" in said


def test_restore_of_a_damaged_file_or_another_keys_changes_nothing(
    run: Run, tmp_path: Path, db: Path
) -> None:
    on(tmp_path, applied("id-1"))
    (other := tmp_path / "other").mkdir()
    on(other, applied("id-2"))
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(os.urandom(8192))
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert "was created with another key" in run("restore", other / "ledger.db", status=EX_CONFIG)
    said = run("restore", garbage, status=EX_CONFIG)
    assert f"the backup {garbage} cannot be restored: SQLITE_NOTADB: name another backup" in said
    assert "move it away" not in said  # the ledger is good
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


# -- while it is in use


@pytest.mark.parametrize("words", [("restore",), ("restore", "copy.db"), ("init",), ("init", "--new")])
def test_ledger_in_use_is_not_changed(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    async def try_it(ledger: Ledger) -> None:
        said = await asyncio.to_thread(run, *words, status=EX_UNAVAILABLE)
        assert "is in use by another process: stop the gateway first" in said
        await ended(ledger, a_bind("id-2"))

    on(tmp_path, applied("id-1"), try_it)
    assert ids_in(tmp_path) == ["id-1", "id-2"]


@pytest.mark.parametrize("url", ["off", "memory:"])
@pytest.mark.parametrize("words", [("restore",), ("init",), ("backup", "copy.db")])
def test_ledger_without_a_file_is_bad_configuration(run: Run, url: str, words: tuple[str, ...]) -> None:
    assert f"LEDGER_URL is {url}" in run(*words, status=EX_CONFIG, url=url)


def test_backup_of_a_missing_ledger_is_bad_configuration(run: Run, tmp_path: Path) -> None:
    assert "there is no ledger" in run("backup", tmp_path / "copy.db", status=EX_CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_commands_on_a_refused_ledger_give_the_refusal(tmp_path: Path, db: Path) -> None:
    """A command that opened the ledger and closed it cleanly would make it look complete."""
    on(tmp_path, applied("id-1"))
    old = shutil.copy(db, tmp_path / "old.db")
    on(tmp_path, applied("id-2"))
    shutil.move(old, db)
    with pytest.raises(LedgerFault, match="is an older copy"):
        opened(sqlite_url(tmp_path), create=False)
