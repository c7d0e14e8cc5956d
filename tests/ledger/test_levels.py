"""Each row of LEVELS is true: its ledger does what the row promises."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from service.ledger import Granted, InProgress, Known, Ledger
from service.ledger.lease import LEASE_MAX_MS
from service.ledger.levels import LEVELS, Level, forms
from service.ledger.opening import secrets_of
from service.ledger.usage_lock import is_unused
from service.ledger.vault import Vault
from tests.ledger.levels import APPLIED, NOW_MS, a_claim, ended, granted, opened, sqlite_url

ROWS = pytest.mark.parametrize("level", LEVELS, ids=[level.name for level in LEVELS])
Open = Callable[..., tuple[Ledger, Vault]]


@pytest.fixture(params=LEVELS, ids=[level.name for level in LEVELS])
def level(request: pytest.FixtureRequest) -> Level:
    row: Level = request.param
    return row


@pytest.fixture
def open_level(level: Level, tmp_path: Path, ledger_key: Path, request: pytest.FixtureRequest) -> Open:
    """Return a function that opens the same ledger of a level each time, as another process would."""
    if level.server_of("postgresql://h/d"):
        url = request.getfixturevalue("postgres_url")
    else:
        url = level.scheme if level.check_url is None else f"{level.scheme}{tmp_path}/ledger.db"
    made = ledger_key if level.needs_key_file else None
    return lambda key=None, **options: opened(url, key or made, **options)


async def test_later_ledger_knows_a_request_only_if_the_level_outlives_its_process(
    level: Level, open_level: Open
) -> None:
    first, _ = open_level()
    await ended(first, a_claim())
    await first.close()
    later, _ = open_level()
    answer = await later.claim(a_claim(), NOW_MS)
    await later.close()
    assert answer == Known(APPLIED) if level.outlives_process else isinstance(answer, Granted)


async def test_level_without_records_grants_every_claim_again(level: Level, open_level: Open) -> None:
    ledger, _ = open_level()
    await ended(ledger, a_claim())
    answers = [await ledger.claim(a_claim(), NOW_MS), await ledger.claim(a_claim(), NOW_MS)]
    await ledger.close()
    assert answers == [Known(APPLIED)] * 2 if level.records else answers == [Granted(1, False)] * 2


async def test_workers_get_the_same_answer_only_if_the_level_is_shared_by_workers(
    level: Level, open_level: Open
) -> None:
    (one, _), (other, _) = open_level(), open_level()
    await granted(one, a_claim(lease_ms=LEASE_MAX_MS))
    answers = [await worker.look(a_claim(), NOW_MS) for worker in (one, other)]
    for worker in (one, other):
        await worker.close()
    assert ([type(answer) for answer in answers] == [InProgress] * 2) is (
        level.shared_by_workers and level.records
    )


@ROWS
def test_level_shared_by_hosts_is_shared_by_workers(level: Level) -> None:
    assert level.shared_by_workers or not level.shared_by_hosts


async def test_level_uses_the_key_of_the_key_file(open_level: Open, ledger_key: Path) -> None:
    pair = [open_level(ledger_key) for _ in range(2)]
    for ledger, _ in pair:
        await ledger.close()
    assert len({vault.fingerprint(b"content") for _, vault in pair}) == 1


def test_urls_of_levels_are_one_phrase() -> None:
    off, memory = (level for level in LEVELS if not level.outlives_process)
    assert forms((off,)) == "off"
    assert forms((off, memory)) == "off or memory:"
    assert forms((off, memory), "and") == "off and memory:"


async def test_opening_that_creates_a_ledger_says_so_once(level: Level, open_level: Open) -> None:
    created: list[str] = []
    for opening in ("first", "second"):
        ledger, _ = open_level(on_create=partial(created.append, opening))
        await ledger.close()
    assert created == ["first"] * level.outlives_process


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
