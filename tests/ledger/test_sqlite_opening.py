"""Opening a SQLite ledger: the files it creates and accepts, and the sentences of its refusals."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from service.ledger import Ending, Key, LedgerFault, State
from service.ledger.levels import LEVELS, forms
from service.ledger.memory import MemoryLedger
from service.ledger.off import OffLedger
from service.ledger.opening import check_url, fault_of
from tests.ledger.levels import (
    IN_DOUBT,
    LEASE_MS,
    NOW_MS,
    a_claim,
    ended,
    granted,
    opened,
    row_of,
    sqlite_url,
    the_row,
)
from tests.ledger.processes import NOBODY, output_of, started


async def made(directory: Path) -> Path:
    """Create a ledger with one request; return its file."""
    ledger, _ = opened(sqlite_url(directory))
    await granted(ledger, a_claim())
    await ledger.close()
    return directory / "ledger.db"


# -- URLs


@pytest.mark.parametrize(
    "url",
    [
        *("", "OFF", "offline", "memory", "memory:/x", "sqlite:", "sqlite://", "sqlite://file.db"),
        *("file.db", "mysql://host/db"),
    ],
)
def test_url_of_no_level_is_refused_with_the_urls_of_every_level(url: str) -> None:
    every = f"must be {forms(LEVELS)}"
    with pytest.raises(ValueError, match=f"^{every}$"):
        check_url(url)
    with pytest.raises(LedgerFault, match=f"^LEDGER_URL {every}$"):
        opened(url)


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite:///a?mode=memory", "sqlite:///a#b", "sqlite:///a\0"])
def test_sqlite_url_with_an_unusable_file_name_is_refused(url: str) -> None:
    with pytest.raises(LedgerFault, match=r"^LEDGER_URL must be sqlite:///file or .*, without \?"):
        opened(url)


def test_off_and_memory_open_their_ledgers() -> None:
    assert isinstance(opened("off")[0], OffLedger)
    assert isinstance(opened("memory:")[0], MemoryLedger)


def test_levels_without_a_file_use_a_configured_key(tmp_path: Path) -> None:
    key_file = tmp_path / "ledger.key"
    key_file.write_bytes(base64.b64encode(bytes(32)))
    key_ids = {opened(url, key_file)[1].key_id for url in ("off", "memory:")}
    assert len(key_ids) == 1
    assert opened("memory:")[1].key_id not in key_ids


async def test_relative_and_absolute_paths_and_odd_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url, path in {
        "sqlite:///relative.db": tmp_path / "relative.db",
        f"sqlite:///{tmp_path}/absolute.db": tmp_path / "absolute.db",
        "sqlite:///:memory:": tmp_path / ":memory:",
        "sqlite:///50% of it.db": tmp_path / "50% of it.db",
    }.items():
        ledger, _ = opened(url)
        await granted(ledger, a_claim())
        assert await row_of(ledger, a_claim()) is not None
        await ledger.close()
        assert path.is_file()


async def test_file_can_be_a_symbolic_link(tmp_path: Path) -> None:
    (volume := tmp_path / "volume").mkdir()
    (tmp_path / "ledger.db").symlink_to(volume / "real.db")
    for _ in range(2):
        assert fault_of(sqlite_url(tmp_path), None) is None
        ledger, _ = opened(sqlite_url(tmp_path))
        await granted(ledger, a_claim(os.urandom(4).hex(), linkage=None))
        await ledger.close()
    assert set(modes_of(tmp_path)) == {"ledger.db", "volume"}
    assert set(modes_of(volume)) >= {"real.db", "real.db.key"}


async def test_files_left_beside_a_symbolic_link_are_explained(tmp_path: Path) -> None:
    file = await made(tmp_path)
    (volume := tmp_path / "volume").mkdir()
    file.rename(volume / "real.db")
    file.symlink_to(volume / "real.db")
    explained = (
        f" ({file} is a symbolic link to {volume}/real.db: the ledger's other files must be in {volume} "
        "and begin with real.db)"
    )
    fault = fault_of(sqlite_url(tmp_path), None)
    assert fault is not None
    assert fault.endswith(explained)
    with pytest.raises(LedgerFault) as refused:
        opened(sqlite_url(tmp_path))
    assert str(refused.value).endswith(explained)
    (tmp_path / "ledger.db.key").rename(volume / "real.db.key")
    (tmp_path / "ledger.db.key.ledgers").rename(volume / "real.db.key.ledgers")
    assert fault_of(sqlite_url(tmp_path), None) is None


# -- created files


def modes_of(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


async def test_new_ledger_and_its_key_have_mode_0600(tmp_path: Path) -> None:
    ledger, _ = opened(sqlite_url(tmp_path))
    await granted(ledger, a_claim())
    while_open = modes_of(tmp_path)
    await ledger.close()
    assert set(while_open) >= {"ledger.db", "ledger.db-shm", "ledger.db-wal"}
    assert set(modes_of(tmp_path)) == {
        *("ledger.db", "ledger.db.lock", "ledger.db.key", "ledger.db.key.ledgers")
    }
    assert {*while_open.values(), *modes_of(tmp_path).values()} == {0o600}


async def test_ledger_keeps_its_rows_across_a_restart(tmp_path: Path) -> None:
    ledger, before = opened(sqlite_url(tmp_path))
    claim = a_claim(fingerprint=before.fingerprint(b"content"))
    token = await ended(
        ledger, claim, Ending(State.APPLIED, "S", "SUCCESS", before.seal(b"reply", claim.key))
    )
    row = await the_row(ledger, claim)
    await ledger.close()
    again, after = opened(sqlite_url(tmp_path))
    assert await the_row(again, claim) == row
    assert row.ending is not None
    assert after.unseal(row.ending.sealed, claim.key) == b"reply"
    assert after.fingerprint(b"content") == row.fingerprint
    assert await granted(again, a_claim("id-2", linkage=None)) == token + 1
    await again.close()


def test_concurrent_workers_create_one_ledger_with_one_key(tmp_path: Path) -> None:
    outputs = output_of(*(started("open_together", tmp_path) for _ in range(4)))
    assert len({key_id for (key_id,) in outputs}) == 1
    # If two close at the same moment, possibly neither is the last one, which removes the log.
    log = {"ledger.db-wal", "ledger.db-shm"}
    files = {"ledger.db", "ledger.db.lock", "ledger.db.key", "ledger.db.key.ledgers"}
    assert {path.name for path in tmp_path.iterdir()} - log == files


def test_missing_ledger_is_not_created_without_create(tmp_path: Path) -> None:
    with pytest.raises(LedgerFault, match=r"there is no ledger .*ledger\.db"):
        opened(sqlite_url(tmp_path), create=False)
    assert list(tmp_path.iterdir()) == []


def test_empty_file_becomes_no_ledger_without_create(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    with pytest.raises(LedgerFault, match=r"there is no ledger .*ledger\.db: its file is empty"):
        opened(sqlite_url(tmp_path), create=False)
    assert (tmp_path / "ledger.db").stat().st_size == 0
    assert not (tmp_path / "ledger.db.key").exists()


# -- keys


def a_key_file(path: Path) -> Path:
    path.write_bytes(base64.b64encode(os.urandom(32)) + b"\n")
    return path


async def test_configured_key_is_used_and_no_key_is_created(tmp_path: Path) -> None:
    key_file = a_key_file(tmp_path / "mine.key")
    ledger, _ = opened(sqlite_url(tmp_path), key_file)
    await ledger.close()
    assert not (tmp_path / "ledger.db.key").exists()


async def test_wrong_key_is_refused(tmp_path: Path) -> None:
    await made(tmp_path)
    with pytest.raises(LedgerFault, match=r"ledger\.db was created .* \(its id is [0-9a-f]{8}, "):
        opened(sqlite_url(tmp_path), a_key_file(tmp_path / "other.key"))
    a_key_file(tmp_path / "ledger.db.key")
    with pytest.raises(LedgerFault, match="was created with another key"):
        opened(sqlite_url(tmp_path))


async def test_missing_key_of_an_existing_ledger_is_refused_and_not_created(tmp_path: Path) -> None:
    await made(tmp_path)
    (tmp_path / "ledger.db.key").unlink()
    with pytest.raises(LedgerFault, match=r"ledger\.db\.key cannot be read: No such file"):
        opened(sqlite_url(tmp_path))
    assert not (tmp_path / "ledger.db.key").exists()


def test_missing_configured_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerFault, match=r"absent\.key cannot be read"):
        opened(sqlite_url(tmp_path), tmp_path / "absent.key")
    assert list(tmp_path.iterdir()) == []


# -- files that cannot be used


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def first_page_lost(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100] + bytes(4000) + path.read_bytes()[4100:])


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1000")


def of_another_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE album (title)")


def of_another_program_with_a_version(path: Path) -> None:
    of_another_program(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1")


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_pipe_as_marker(path: Path) -> None:
    marker = path.with_name("ledger.db.key.ledgers")
    marker.unlink()
    os.mkfifo(marker)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (garbage, "cannot be opened: SQLITE_NOTADB"),
        (cut_short, "cannot be opened: SQLITE_CORRUPT"),
        (first_page_lost, "cannot be opened: SQLITE_(CORRUPT|NOTADB)"),
        (newer, "schema is version 1000, newer than this gateway's"),
        (of_another_program, "another program's database"),
        (of_another_program_with_a_version, "another program's database"),
        (a_directory, "ledger.db is not a regular file: move it away"),
        (a_pipe, "ledger.db is not a regular file: move it away"),
        (a_pipe_as_marker, "ledgers cannot be read .it is a pipe, a socket or a device"),
    ],
)
async def test_file_that_cannot_be_used_is_refused(
    tmp_path: Path, harm: Callable[[Path], None], sentence: str
) -> None:
    path = await made(tmp_path)
    harm(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(LedgerFault, match=sentence):
        opened(sqlite_url(tmp_path))
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerFault, match="cannot be created: No such file or directory"):
        opened(sqlite_url(tmp_path / "absent"))


def test_directory_that_cannot_be_written_is_named() -> None:
    # Not under pytest's directory, which other users cannot read.
    directory = Path(tempfile.mkdtemp())
    try:
        directory.chmod(0o555)
        ((sentence, checked),) = output_of(started("open_as_nobody", directory))
        assert checked == sentence
        assert f"(uid {NOBODY}) cannot write {directory}: give it to this user" in sentence
    finally:
        directory.chmod(0o755)
        shutil.rmtree(directory)


def test_ledger_that_cannot_be_written_is_named() -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        path = asyncio.run(made(directory))
        for part, mode in ((path, 0o444), (directory / "ledger.db.key", 0o444), (directory, 0o555)):
            part.chmod(mode)
        ((sentence, checked),) = output_of(started("open_as_nobody", directory))
        assert checked == sentence
        assert f"(uid {NOBODY}) cannot write {directory}: give it to this user" in sentence
    finally:
        directory.chmod(0o755)
        shutil.rmtree(directory)


# -- contents of the file


MARKS = ("member-4711", "2160000000000042", "card-5555", "reply-with-phone-85261234567")


def contents_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


async def test_files_contain_no_personal_data(tmp_path: Path) -> None:
    ledger, vault = opened(sqlite_url(tmp_path))
    content = " ".join(MARKS).encode()
    claim = a_claim(fingerprint=vault.fingerprint(content), linkage=vault.linkage(MARKS))
    sealed = vault.seal(content, claim.key)
    token = await granted(ledger, claim)
    await ledger.renew(claim.key, token, LEASE_MS, NOW_MS)
    await ledger.record(claim.key, token, replace(IN_DOUBT, sealed=sealed), NOW_MS)
    ending = Ending(State.APPLIED, sealed=sealed)
    await ledger.resolve(claim.key, ending, who="ann", why="asked", now_ms=NOW_MS)
    await granted(ledger, replace(claim, key=Key("client-1", "SyncLinkage", "id-2")))
    while_open = contents_of(tmp_path)
    await ledger.close()
    after = contents_of(tmp_path)
    assert len(while_open["ledger.db-wal"]) > 0
    assert b"id-1" in after["ledger.db"]
    for data in (*while_open.values(), *after.values()):
        assert [mark for mark in MARKS if mark.encode() in data] == []
