"""A lost, emptied or older ledger is refused; a new ledger can be created."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from service.ledger import Known, LedgerFault, marker
from service.ledger.opening import fault_of
from service.ledger.sqlite import place
from service.ledger.sqlite.backup import back_up
from service.ledger.sqlite.inspection import inspect
from service.ledger.vault import make_key_file
from tests.ledger.levels import APPLIED, NOW_MS, a_bind, ended, granted, opened, sqlite_url
from tests.ledger.older import back_to_version
from tests.ledger.processes import output_of, started


@dataclass(frozen=True)
class Kept:
    """A ledger with its key in another directory."""

    directory: Path

    @property
    def db(self) -> Path:
        return self.directory / "ledger.db"

    @property
    def key(self) -> Path:
        return self.directory / "keys" / "key"

    @property
    def marker(self) -> Path:
        return self.key.with_name("key.ledgers")

    @property
    def url(self) -> str:
        return sqlite_url(self.directory)

    def open(self) -> Any:
        """Open the ledger as serve does."""
        return opened(self.url, self.key)[0]

    async def refusal(self) -> str | None:
        """Return the refusal of `serve`, or None; `config check` must report the same."""
        predicted = fault_of(self.url, self.key)
        if predicted is None:
            await self.open().close()
            return None
        for _ in range(2):
            with pytest.raises(LedgerFault, match=f"^{re.escape(predicted)}$"):
                opened(self.url, self.key)
        assert fault_of(self.url, self.key) == predicted
        return predicted

    def tokens(self) -> list[int]:
        """Return the last tokens in the marker."""
        return [entry["last_token"] for entry in json.loads(self.marker.read_bytes())["ledgers"].values()]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Return the paths of a ledger that does not exist yet; its key was created before, by an operator."""
    kept = Kept(tmp_path)
    kept.key.parent.mkdir()
    make_key_file(kept.key, random_bytes=os.urandom)
    return kept


async def used(kept: Kept, *request_ids: str) -> None:
    """Apply requests, and close the ledger cleanly."""
    ledger = kept.open()
    for request_id in request_ids:
        await ended(ledger, a_bind(request_id))
    await ledger.close()


async def killed(kept: Kept) -> None:
    """Apply requests in a process that is killed, so that the log remains next to the database."""
    process = started("apply_forever", kept.directory, str(kept.key))
    assert process.stdout is not None
    assert process.stdin is not None
    for _ in range(20):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stdin.close()


# -- creation


async def test_first_start_creates_a_ledger_and_its_marker(kept: Kept) -> None:
    await used(kept, "id-1")
    assert kept.tokens() == [1]
    assert kept.marker.stat().st_mode & 0o777 == 0o600
    assert await kept.refusal() is None


async def test_two_concurrent_first_starts_create_one_ledger(kept: Kept) -> None:
    output_of(*(started("open_together", kept.directory, str(kept.key)) for _ in range(4)))
    assert len(kept.tokens()) == 1
    assert await kept.refusal() is None


def crashed_before_the_key(directory: Path) -> None:
    (directory / "ledger.db.key").unlink()


def crashed_before_the_database(directory: Path) -> None:
    (directory / "ledger.db").unlink()


def crashed_before_the_tables(directory: Path) -> None:
    (directory / "ledger.db").write_bytes(b"")


@pytest.mark.parametrize(
    "crash", [crashed_before_the_key, crashed_before_the_database, crashed_before_the_tables]
)
async def test_killed_first_start_is_repeated(tmp_path: Path, crash: Callable[[Path], None]) -> None:
    ledger, _ = opened(sqlite_url(tmp_path))
    await ledger.close()
    (tmp_path / "ledger.db.key.ledgers").write_text('{"ledgers": {}}')
    crash(tmp_path)
    if crash is crashed_before_the_key:
        (tmp_path / "ledger.db").unlink()
    ledger, _ = opened(sqlite_url(tmp_path))
    await granted(ledger, a_bind())
    await ledger.close()


async def test_database_that_the_marker_does_not_list_yet_is_adopted(kept: Kept) -> None:
    """The first start was killed between its last two steps."""
    await used(kept, "id-1")
    kept.marker.write_text('{"ledgers": {}}')
    assert await kept.refusal() is None
    assert kept.tokens() == [1]


@pytest.mark.parametrize("said", [None, '{"ledgers": {}}'])
def test_ledger_is_not_created_if_its_marker_cannot_be_written(kept: Kept, said: str | None) -> None:
    """On a full disk, the directory looks writable, but the loss of the ledger would not be noticed."""
    if said is not None:
        kept.marker.write_text(said)
    kept.key.with_name("key.ledgers.new").mkdir()
    cause = r"key\.ledgers cannot be written \(Is a directory\): restore a backup with: .* ledger init$"
    with pytest.raises(LedgerFault, match=cause):
        kept.open()
    assert not kept.db.exists()


# -- files that lost their rows


def missing(kept: Kept) -> None:
    kept.db.unlink()


def empty(kept: Kept) -> None:
    kept.db.write_bytes(b"")


def header_without_tables(kept: Kept) -> None:
    kept.db.unlink()
    with closing(sqlite3.connect(kept.db)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


@pytest.mark.parametrize("harm", [missing, empty, header_without_tables])
async def test_absent_database_is_refused_if_its_key_has_had_one(
    kept: Kept, harm: Callable[[Kept], None]
) -> None:
    await used(kept, "id-1")
    harm(kept)
    refusal = await kept.refusal()
    assert refusal is not None
    assert refusal.startswith(f"the ledger {kept.db} ")
    assert "ledger restore FILE" in refusal
    assert refusal.endswith("alipayhk-gateway ledger init --new")
    assert not kept.db.exists() or kept.db.stat().st_size in {0, 4096}


@pytest.mark.parametrize("harm", [empty, header_without_tables])
async def test_file_without_rows_is_refused_if_the_key_has_no_marker(
    kept: Kept, harm: Callable[[Kept], None]
) -> None:
    """Only a copy of a live database and its key were moved."""
    await used(kept, "id-1")
    kept.marker.unlink()
    harm(kept)
    assert "its key existed before" in (await kept.refusal() or "")


async def test_missing_database_is_refused_if_its_log_remains(kept: Kept) -> None:
    await killed(kept)
    kept.db.unlink()
    kept.marker.unlink()
    assert "its write-ahead log" in (await kept.refusal() or "")


async def test_missing_database_is_refused_if_its_own_key_remains(tmp_path: Path) -> None:
    """This includes ledgers of a version without markers, whatever the age of the key."""
    ledger, _ = opened(sqlite_url(tmp_path))
    await ledger.close()
    (tmp_path / "ledger.db").unlink()
    for _ in range(2):
        with pytest.raises(LedgerFault, match=r"ledger\.db is missing, and .*ledger init"):
            opened(sqlite_url(tmp_path))
        (tmp_path / "ledger.db.key.ledgers").unlink(missing_ok=True)
    (tmp_path / "ledger.db.key").unlink()
    ledger, _ = opened(sqlite_url(tmp_path))
    await ledger.close()


async def test_older_copy_is_refused_and_the_newer_one_is_not(kept: Kept, tmp_path: Path) -> None:
    await used(kept, "id-1")
    older = shutil.copy(kept.db, tmp_path / "older.db")
    await used(kept, "id-2")
    newer = kept.db.rename(tmp_path / "newer.db")
    shutil.copy(older, kept.db)
    refusal = await kept.refusal() or ""
    assert "is an older copy: its last token is 1, but" in refusal
    assert refusal.endswith("alipayhk-gateway ledger restore")
    shutil.move(newer, kept.db)
    assert await kept.refusal() is None


async def test_ledger_that_moves_on_while_it_is_examined_is_no_older_copy(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = kept.open()

    def inspected(path: Path, *, is_unused: bool) -> object:
        found = inspect(path, is_unused=is_unused)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE meta SET last_token = 9")
        marker.Marker(kept.key).change(
            lambda entries: {one: replace(entry, token=9) for one, entry in entries.items()}
        )
        return found

    monkeypatch.setattr(place, "inspect", inspected)
    assert fault_of(kept.url, kept.key) is None
    assert kept.tokens() == [9]
    await kept.open().close()
    await ledger.close()


async def test_copy_of_a_running_ledgers_main_file_is_refused(kept: Kept, tmp_path: Path) -> None:
    ledger = kept.open()
    for number in range(3):
        await ended(ledger, a_bind(f"id-{number}"))
    copy = shutil.copy(kept.db, tmp_path / "copy.db")
    await ledger.close()
    shutil.move(copy, kept.db)
    assert "lacks its write-ahead log" in (await kept.refusal() or "")


async def test_copy_of_a_running_ledgers_main_file_is_refused_without_a_marker(
    kept: Kept, tmp_path: Path
) -> None:
    """Only the database and the key were moved: only the dirty flag shows that rows are missing."""
    await used(kept, "id-1")
    ledger = kept.open()
    await ended(ledger, a_bind("id-2"))
    copy = shutil.copy(kept.db, tmp_path / "copy.db")
    await ledger.close()
    shutil.move(copy, kept.db)
    kept.marker.unlink()
    assert "was not closed cleanly and its write-ahead log" in (await kept.refusal() or "")


async def test_killed_ledger_without_its_log_is_refused(kept: Kept) -> None:
    await killed(kept)
    (kept.directory / "ledger.db-wal").unlink()
    marker = kept.marker.read_bytes()
    assert "lacks its write-ahead log" in (await kept.refusal() or "")
    kept.marker.unlink()
    assert "was not closed cleanly" in (await kept.refusal() or "")
    kept.marker.write_bytes(marker)
    assert "lacks its write-ahead log" in (await kept.refusal() or "")


async def test_killed_ledger_with_its_log_is_opened(kept: Kept) -> None:
    await killed(kept)
    ledger = kept.open()
    assert len([row async for row in ledger.rows()]) >= 20
    await ledger.close()


async def test_killed_ledger_whose_tables_are_only_in_its_log_is_whole(kept: Kept) -> None:
    """Its first start was killed before a checkpoint, and so before the first token."""
    await used(kept)
    copy, new = kept.directory / "copy.db", kept.directory / "new.db"
    with (
        closing(sqlite3.connect(kept.db)) as source,
        closing(sqlite3.connect(new, isolation_level=None)) as connection,
    ):
        (version,) = source.execute("PRAGMA user_version").fetchone()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript("".join(source.iterdump()))
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("UPDATE meta SET run = 'killed'")
        for ending in ("", "-wal"):
            shutil.copy(f"{new}{ending}", f"{copy}{ending}")
    with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as main:
        assert main.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    assert inspect(copy, is_unused=True) == inspect(kept.db, is_unused=True)


async def test_killed_ledger_whose_log_another_program_merged_is_opened(kept: Kept) -> None:
    """A program that opens and closes the file after a crash merges and deletes the log without loss."""
    await killed(kept)
    with closing(sqlite3.connect(kept.db)) as connection:
        connection.execute("SELECT count(*) FROM request").fetchone()
    assert not (kept.directory / "ledger.db-wal").exists()
    assert await kept.refusal() is None


async def test_older_copy_with_the_log_of_a_killed_ledger_is_refused(kept: Kept, tmp_path: Path) -> None:
    """SQLite would apply the newer log to the older file, and lose the rows that are in neither."""
    await used(kept, "id-1")
    older = shutil.copy(kept.db, tmp_path / "older.db")
    await killed(kept)
    shutil.copy(older, kept.db)
    log = (kept.directory / "ledger.db-wal").read_bytes()
    assert "do not belong together" in (await kept.refusal() or "")
    assert (kept.directory / "ledger.db-wal").read_bytes() == log


async def test_ledger_of_another_path_with_the_same_key_is_refused(kept: Kept, tmp_path: Path) -> None:
    await used(kept, "id-1")
    kept.db.rename(tmp_path / "kept.db")
    marker = kept.marker.read_bytes()
    kept.marker.unlink()
    await used(kept, "id-1", "id-2")
    kept.marker.write_bytes(marker)
    assert "is not listed in" in (await kept.refusal() or "")


async def test_lost_ledger_is_refused_after_another_was_started_at_its_path(
    kept: Kept, tmp_path: Path
) -> None:
    """The lost ledger does not know the other one's requests, whatever its own path was."""
    (moved := tmp_path / "moved").mkdir()
    await used(kept, "id-1")
    lost = shutil.copy(kept.db, tmp_path / "lost.db")
    first = json.loads(kept.marker.read_bytes())["ledgers"]
    kept.marker.write_text('{"ledgers": {}}')
    ledger, _ = opened(sqlite_url(moved), kept.key)  # as `ledger init --new` creates it
    await ended(ledger, a_bind("id-2"))
    await ledger.close()
    second_of_key = json.loads(kept.marker.read_bytes())["ledgers"]
    kept.marker.write_text(json.dumps({"ledgers": first | second_of_key}))
    second = (moved / "ledger.db").rename(tmp_path / "second.db")
    shutil.copy(lost, moved / "ledger.db")
    refusal = fault_of(sqlite_url(moved), kept.key) or ""
    assert f"was used at {kept.db} before" in refusal
    with pytest.raises(LedgerFault, match="has been used here since: put that one back"):
        opened(sqlite_url(moved), kept.key)
    shutil.move(second, moved / "ledger.db")
    assert fault_of(sqlite_url(moved), kept.key) is None
    assert await kept.refusal() is None


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"ledgers": {"a": 1}}', b"\xff", b"[" * 9999])
async def test_damaged_marker_is_refused(kept: Kept, damage: bytes) -> None:
    await used(kept, "id-1")
    kept.marker.write_bytes(damage)
    refusal = await kept.refusal() or ""
    assert refusal.startswith(f"{kept.marker} is damaged")
    assert refusal.endswith("ledger restore")


# -- running


async def test_marker_follows_within_a_second(kept: Kept) -> None:
    process = started("apply_forever", kept.directory, str(kept.key))
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        seen: list[int] = []
        while len(seen) < 3:
            process.stdout.readline()
            if kept.marker.exists() and (token := kept.tokens()[0]) not in seen:
                seen.append(token)
        assert seen == sorted(seen)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


async def test_last_of_two_processes_to_close_clears_the_dirty_flag(kept: Kept) -> None:
    first, second = kept.open(), kept.open()
    await ended(first, a_bind("id-1"))
    await ended(second, a_bind("id-2"))
    await first.close()
    with closing(sqlite3.connect(f"file:{kept.db}?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT run FROM meta").fetchone() != (None,)
    await ended(second, a_bind("id-3"))
    await second.close()
    with closing(sqlite3.connect(f"file:{kept.db}?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT run FROM meta").fetchone() == (None,)
    assert kept.tokens() == [3]


async def test_marker_keeps_the_highest_token_of_two_processes(kept: Kept) -> None:
    first, second = kept.open(), kept.open()
    await ended(first, a_bind("id-1"))
    await ended(second, a_bind("id-2"))
    await second.close()
    await first.close()
    assert kept.tokens() == [2]


async def test_marker_that_cannot_be_written_stops_nothing_and_is_reported_once(kept: Kept) -> None:
    causes, reported = list[str](), threading.Event()

    def report(cause: str) -> None:
        causes.append(cause)
        reported.set()

    ledger, _ = opened(kept.url, kept.key, report=report)
    blocker = kept.key.with_name("key.ledgers.new")
    blocker.mkdir()
    try:
        await ended(ledger, a_bind("id-1"))
        assert await asyncio.to_thread(reported.wait, 10)
        await ended(ledger, a_bind("id-2"))
    finally:
        await ledger.close()
    assert causes == ["EISDIR"]
    blocker.rmdir()
    assert kept.tokens() == [0]
    assert await kept.refusal() is None
    assert kept.tokens() == [2]


async def test_lock_of_a_stopped_process_delays_the_marker_and_stops_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marker, "LOCK_TIMEOUT_S", 0.1)
    causes: list[str] = []
    ledger, _ = opened(kept.url, kept.key, report=causes.append)
    with kept.key.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        await ended(ledger, a_bind("id-1"))
        await ledger.close()
    assert causes == ["ETIMEDOUT"]
    assert kept.tokens() == [0]
    await used(kept, "id-2")
    assert kept.tokens() == [2]


@pytest.mark.parametrize("name", [b"50% \xe5\xb8\xb3", b"not UTF-8 \xff"], ids=repr)
async def test_ledger_is_recognized_at_a_path_with_any_name(tmp_path: Path, name: bytes) -> None:
    directory = tmp_path / os.fsdecode(name)
    directory.mkdir()
    for number in range(2):
        ledger, _ = opened(sqlite_url(directory))
        await ended(ledger, a_bind(f"id-{number}"))
        assert [len(await ledger.find("id-0")), len([row async for row in ledger.rows()])] == [
            1,
            number + 1,
        ]
        await ledger.close()
    assert back_up(directory / "ledger.db", directory / "backup.db", NOW_MS).requests == 2
    (entry,) = json.loads((directory / "ledger.db.key.ledgers").read_bytes())["ledgers"].values()
    assert entry == {"last_token": 2, "ledger": str(directory / "ledger.db")}
    assert fault_of(sqlite_url(directory), None) is None


# -- upgrades


@pytest.mark.parametrize("version", [1, 2])
async def test_ledger_of_an_earlier_version_is_adopted_once(tmp_path: Path, version: int) -> None:
    ledger, _ = opened(sqlite_url(tmp_path))
    await ended(ledger, a_bind("id-1"))
    await ledger.close()
    path = tmp_path / "ledger.db"
    back_to_version(version, path)
    old = shutil.copy(path, tmp_path / "old.db")
    ledger, _ = opened(sqlite_url(tmp_path))
    assert await ledger.claim(a_bind("id-1"), NOW_MS) == Known(APPLIED)
    await ended(ledger, a_bind("id-2"))
    await ledger.close()
    # A copy from before the upgrade is an older copy.
    shutil.copy(old, path)
    with pytest.raises(LedgerFault, match="is not listed in"):
        opened(sqlite_url(tmp_path))
