"""Faults under a SQLite ledger in use: it reports the cause, and recovers."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.ledger import InProgress, Known, Ledger, LedgerFault, LedgerUnavailable, State
from service.ledger.errors import LedgerBusy
from service.ledger.sqlite.ballast import BYTES, STEP_BYTES, Ballast
from tests import disks
from tests.ledger.levels import APPLIED, NOW_MS, a_bind, a_claim, ended, granted, opened, row_of, sqlite_url
from tests.ledger.processes import PAGE_BYTES, fill_and_recover, output_of, started
from tests.ledger.trouble import locked

# -- processes


async def test_kill_9_loses_no_answered_operation(tmp_path: Path) -> None:
    process = started("apply_forever", tmp_path)
    assert process.stdout is not None
    answered = [process.stdout.readline().strip() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    answered += process.stdout.read().split()
    process.wait()
    process.stdout.close()
    process.stdin.close()  # type: ignore[union-attr]
    ledger, _ = opened(sqlite_url(tmp_path))
    states = {row.key.request_id: row.state async for row in ledger.rows()}
    assert {states[request_id] for request_id in answered} == {State.APPLIED}
    assert len(states) <= len(answered) + 1
    await ledger.close()


@pytest.mark.parametrize("has_log", [True, False])
async def test_kill_9_during_a_checkpoint_loses_nothing_unless_the_log_is_lost(
    tmp_path: Path, has_log: bool
) -> None:
    """The first page of the main file says how long the file will be when the checkpoint is done."""
    process = started("begin_a_checkpoint", tmp_path)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    main, log = tmp_path / "ledger.db", tmp_path / "ledger.db-wal"
    assert int.from_bytes(main.read_bytes()[28:32]) * PAGE_BYTES > main.stat().st_size
    if has_log:
        ledger, _ = opened(sqlite_url(tmp_path))
        assert {row.state async for row in ledger.rows()} == {State.APPLIED}
        assert len([row async for row in ledger.rows()]) == 100
        await ledger.close()
        with closing(sqlite3.connect(main)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    else:
        log.unlink()
        with pytest.raises(LedgerFault, match="alipayhk-gateway ledger restore"):
            opened(sqlite_url(tmp_path))


@pytest.mark.parametrize("requests", [0, 1, 60])
async def test_ledger_is_opened_after_a_checkpoint_that_ended_at_any_page(
    tmp_path: Path, requests: int
) -> None:
    (tmp_path / "used").mkdir()
    ledger, _ = opened(sqlite_url(tmp_path / "used"))
    for number in range(requests):
        await ended(ledger, a_claim(f"id-{number}", linkage=b"%d" % number))
    crashed = shutil.copytree(tmp_path / "used", tmp_path / "crashed")
    await ledger.close()
    with closing(sqlite3.connect(shutil.copytree(crashed, tmp_path / "whole") / "ledger.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint").fetchone()
        old, new = ((tmp_path / name / "ledger.db").read_bytes() for name in ("crashed", "whole"))
    assert new != old
    for pages in range(len(new) // PAGE_BYTES):
        found = shutil.copytree(crashed, tmp_path / f"{pages}")
        written = pages * PAGE_BYTES
        (found / "ledger.db").write_bytes(new[:written] + old[written:])
        ledger, _ = opened(sqlite_url(found))
        assert len([row async for row in ledger.rows()]) == requests
        await ledger.close()


async def test_processes_on_one_file_grant_an_id_once(tmp_path: Path) -> None:
    opened_first, _ = opened(sqlite_url(tmp_path))
    outputs = output_of(*(started("claim_all", tmp_path, "300") for _ in range(3)))
    granted_lines = [line.split() for output in outputs for line in output]
    assert sorted(request_id for request_id, _ in granted_lines) == sorted(f"id-{n}" for n in range(300))
    assert len({token for _, token in granted_lines}) == 300
    assert isinstance(await opened_first.claim(a_claim("id-0", linkage=b"0"), NOW_MS), InProgress)
    await opened_first.close()


# -- locks


async def test_operations_wait_for_a_locked_file_up_to_the_timeout(sqlite: Ledger, tmp_path: Path) -> None:
    await ended(sqlite, a_claim())
    with locked(tmp_path / "ledger.db"):
        began = time.monotonic()
        with pytest.raises(LedgerBusy, match="SQLITE_BUSY"):
            await sqlite.claim(a_claim("id-2"), NOW_MS)
        assert 0.3 < time.monotonic() - began < 10
        # Reads do not wait for the lock.
        assert await sqlite.look(a_claim(), NOW_MS) == Known(APPLIED)
        assert len(await sqlite.find("id-1")) == 1
        assert [row.key.request_id async for row in sqlite.rows()] == ["id-1"]
    await ended(sqlite, a_claim("id-2", biz_time_ms=NOW_MS + 1))


# -- full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """Return a directory on a small file system, or None if nothing can be mounted."""
    with disks.small(tmp_path / "small") as directory:
        yield directory


def test_ledger_reports_a_file_size_limit_and_recovers(tmp_path: Path) -> None:
    ((error, looked),) = output_of(started("fill_the_disk", tmp_path))
    assert error.startswith("the ledger's file cannot be used: SQLITE_")
    assert looked == "Known"


async def test_ledger_reports_a_full_disk_and_recovers(
    small_disk: Path | None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if small_disk is None:
        test_ledger_reports_a_file_size_limit_and_recovers(tmp_path)
        return
    ledger, _ = opened(sqlite_url(small_disk))
    await ended(ledger, a_claim("first", linkage=None))
    await fill_and_recover(ledger, disks.fill(small_disk, but=60_000).unlink)
    error = capsys.readouterr().out.split("\n")[0]
    assert "SQLITE_FULL" in error or "is full: free 20 MiB" in error


async def test_outcomes_fit_on_a_full_disk_and_claims_are_refused(small_disk: Path | None) -> None:
    if small_disk is None:
        pytest.skip("no file system can be mounted here")
    ledger, _ = opened(sqlite_url(small_disk))
    ballast = small_disk / "ledger.db.ballast"
    claims = [a_bind(f"id-{number}") for number in range(500)]
    tokens = [await granted(ledger, claim) for claim in claims]
    assert ballast.stat().st_blocks * 512 == BYTES
    filler = disks.fill(small_disk)
    for claim, token in zip(claims, tokens, strict=True):
        assert await ledger.record(claim.key, token, APPLIED, NOW_MS)
    assert 0 < ballast.stat().st_size < BYTES
    with pytest.raises(LedgerUnavailable, match="is full: free 20 MiB, until then no request is sent"):
        await ledger.claim(a_claim("new"), NOW_MS)
    assert await ledger.look(claims[0], NOW_MS) == Known(APPLIED)
    filler.unlink()
    await granted(ledger, a_claim("new"))
    assert ballast.stat().st_size == BYTES
    await ledger.close()
    assert not ballast.exists()


def test_ballast_is_given_up_in_steps_until_nothing_is_left(tmp_path: Path) -> None:
    ballast, file = Ballast(tmp_path / "ledger.db"), tmp_path / "ledger.db.ballast"
    assert not ballast.give_up()
    file.write_bytes(bytes(STEP_BYTES + 1))
    assert [(ballast.give_up(), file.stat().st_size) for _ in range(3)] == [
        (True, 1),
        (True, 0),
        (False, 0),
    ]
    file.unlink()
    file.mkdir()
    assert not ballast.give_up()


async def test_claims_wait_for_room_for_outcomes(small_disk: Path | None) -> None:
    if small_disk is None:
        pytest.skip("no file system can be mounted here")
    ledger, _ = opened(sqlite_url(small_disk))
    filler = disks.fill(small_disk, but=BYTES)
    with pytest.raises(LedgerUnavailable, match="is full"):
        await ledger.claim(a_claim(), NOW_MS)
    filler.unlink()
    await granted(ledger, a_claim())
    await ledger.close()


async def test_ledger_whose_ballast_cannot_be_written_is_used_without_it(
    sqlite: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "ledger.db.ballast").mkdir()
    await granted(sqlite, a_claim())


# -- removed and replaced files


async def test_removed_file_is_noticed_until_it_is_restored(sqlite: Ledger, tmp_path: Path) -> None:
    path, aside = tmp_path / "ledger.db", tmp_path / "aside.db"
    token = await granted(sqlite, a_claim())
    path.rename(aside)
    with pytest.raises(LedgerUnavailable, match="cannot be reached: ENOENT"):
        await sqlite.record(a_claim().key, token, APPLIED, NOW_MS)
    with pytest.raises(LedgerUnavailable, match="cannot be reached: ENOENT"):
        await sqlite.look(a_claim(), NOW_MS)
    with pytest.raises(LedgerUnavailable, match="cannot be reached: ENOENT"):
        await sqlite.find("id-1")
    assert not path.exists()
    aside.rename(path)
    assert await sqlite.record(a_claim().key, token, APPLIED, NOW_MS)
    assert await sqlite.claim(a_claim(), NOW_MS) == Known(APPLIED)


async def test_replaced_file_is_noticed_and_not_written(sqlite: Ledger, tmp_path: Path) -> None:
    path, aside, other = tmp_path / "ledger.db", tmp_path / "aside.db", tmp_path / "other"
    await granted(sqlite, a_claim())
    other.mkdir()
    shutil.copy(tmp_path / "ledger.db.key", other / "key")
    replacement, _ = opened(sqlite_url(other), other / "key")
    await replacement.close()
    path.rename(aside)
    shutil.copy(other / "ledger.db", path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(LedgerUnavailable, match="was replaced"):
            await sqlite.claim(a_claim("id-2", linkage=None), NOW_MS)
    assert path.read_bytes() == before
    aside.rename(path)
    await granted(sqlite, a_claim("id-2", linkage=None))


async def test_removed_write_ahead_log_is_noticed(sqlite: Ledger, tmp_path: Path) -> None:
    await granted(sqlite, a_claim())
    (tmp_path / "ledger.db-wal").unlink()
    with pytest.raises(LedgerUnavailable, match="cannot be reached: ENOENT"):
        await sqlite.claim(a_claim("id-2", linkage=None), NOW_MS)
    # This process still has the log open, and merges it into the file when it closes.
    await sqlite.close()
    again, _ = opened(sqlite_url(tmp_path))
    assert await row_of(again, a_claim()) is not None
    await again.close()


async def test_removed_shared_memory_is_noticed(sqlite: Ledger, tmp_path: Path) -> None:
    """Another process would create a new one, and both would write to the same positions of the log."""
    await granted(sqlite, a_claim())
    (tmp_path / "ledger.db-shm").unlink()
    with pytest.raises(LedgerUnavailable, match="cannot be reached: ENOENT"):
        await sqlite.claim(a_claim("id-2", linkage=None), NOW_MS)
