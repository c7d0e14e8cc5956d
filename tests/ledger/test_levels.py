"""Each row of LEVELS is true: its ledger does what the row promises."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.ledger import Granted, Known
from service.ledger.levels import LEVELS, Level, forms
from service.ledger.opening import is_new, secrets_of
from service.ledger.usage_lock import is_unused
from service.ledger.vault import make_key_file
from tests.ledger.levels import APPLIED, NOW_MS, a_claim, ended, granted, opened, sqlite_url

ROWS = pytest.mark.parametrize("level", LEVELS, ids=[level.name for level in LEVELS])


def url_in(directory: Path, level: Level) -> str:
    return level.scheme if level.check_url is None else f"{level.scheme}{directory}/ledger.db"


@ROWS
async def test_later_ledger_knows_a_request_only_if_the_level_outlives_its_process(
    tmp_path: Path, level: Level
) -> None:
    url = url_in(tmp_path, level)
    first, _ = opened(url)
    await ended(first, a_claim())
    await first.close()
    later, _ = opened(url)
    answer = await later.claim(a_claim(), NOW_MS)
    await later.close()
    assert answer == Known(APPLIED) if level.outlives_process else isinstance(answer, Granted)


@ROWS
async def test_level_without_records_grants_every_claim_again(tmp_path: Path, level: Level) -> None:
    ledger, _ = opened(url_in(tmp_path, level))
    await ended(ledger, a_claim())
    answers = [await ledger.claim(a_claim(), NOW_MS), await ledger.claim(a_claim(), NOW_MS)]
    await ledger.close()
    assert answers == [Known(APPLIED)] * 2 if level.records else answers == [Granted(1, False)] * 2


@ROWS
async def test_workers_get_the_same_answer_only_if_the_level_is_shared_by_workers(
    tmp_path: Path, level: Level
) -> None:
    url = url_in(tmp_path, level)
    (one, _), (other, _) = opened(url), opened(url)
    await granted(one, a_claim())
    answers = [await worker.look(a_claim(), NOW_MS) for worker in (one, other)]
    for worker in (one, other):
        await worker.close()
    assert (answers[0] == answers[1]) is level.shared_by_workers


@ROWS
def test_level_shared_by_hosts_is_shared_by_workers(level: Level) -> None:
    assert level.shared_by_workers or not level.shared_by_hosts


@ROWS
async def test_level_uses_the_key_of_the_key_file(tmp_path: Path, level: Level) -> None:
    make_key_file(tmp_path / "key", random_bytes=os.urandom)
    pair = [opened(url_in(tmp_path, level), tmp_path / "key") for _ in range(2)]
    for ledger, _ in pair:
        await ledger.close()
    assert len({vault.fingerprint(b"content") for _, vault in pair}) == 1


def test_urls_of_levels_are_one_phrase() -> None:
    off, memory = (level for level in LEVELS if not level.outlives_process)
    assert forms((off,)) == "off"
    assert forms((off, memory)) == "off or memory:"
    assert forms((off, memory), "and") == "off and memory:"


def test_ledger_is_new_while_its_file_is_missing_or_empty(tmp_path: Path) -> None:
    url, file = sqlite_url(tmp_path), tmp_path / "ledger.db"
    assert is_new(url)
    file.touch()
    assert is_new(url)
    file.write_bytes(b"x")
    assert not is_new(url)
    assert not is_new("memory:")


async def test_ledger_is_unused_while_no_process_has_it_open(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    assert is_unused(file)
    ledger, _ = opened(sqlite_url(tmp_path))
    assert not is_unused(file)
    await ledger.close()
    assert is_unused(file)


def test_database_and_key_of_a_level_are_secret(tmp_path: Path) -> None:
    file, key = tmp_path / "ledger.db", tmp_path / "key"
    assert secrets_of(sqlite_url(tmp_path), None) == (file, tmp_path / "ledger.db.key")
    assert secrets_of(sqlite_url(tmp_path), key) == (file, key)
    assert secrets_of("memory:", key) == (key,)
    assert secrets_of("memory:", None) == ()
