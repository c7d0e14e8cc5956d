"""Each row of LEVELS is true: its ledger does what the row promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.ledger import Granted, Known
from service.ledger.levels import LEVELS, Level
from tests.ledger.levels import APPLIED, NOW_MS, a_claim, ended, granted, opened

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
