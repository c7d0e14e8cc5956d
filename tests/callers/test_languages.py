"""The clients of all languages report the same outcomes, and correct ones while gateways stop and start."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, cast

import pytest

from service.ledger.vault import make_key_file
from tests.callers.fleet import SHARE_MIN, SIZE, Fleet, fleet
from tests.callers.languages import LANGUAGES, Language, do, variables_of
from tests.callers.storm import compare, killing, received
from tests.e2e.material import Material
from tests.linkage.scenes import FILE
from tests.linkage.where import KINDS, a_sandbox, serving
from tests.postgres.server import Postgres

STORM_S: Final = 6
"""Long enough for some successful calls on a busy machine, though the gateway is down most of the time."""

pytestmark = pytest.mark.callers


@pytest.fixture(scope="module", params=LANGUAGES, ids=str)
def language(request: pytest.FixtureRequest) -> Language:
    """Build the client of a language, and return the language."""
    language = cast("Language", request.param)
    missing = [program for program in language.needs if shutil.which(program) is None]
    assert missing == [], f"{language} needs {missing}. .ci/run installs them."
    for command in language.prepare:
        do(language, command, {})
    return language


@pytest.fixture(scope="module")
def alipayhk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Material, str]]:
    """Run a sandbox; return its keys and URL."""
    with a_sandbox(tmp_path_factory.mktemp("callers")) as found:
        yield found


@pytest.mark.parametrize("kind", KINDS)
def test_scenarios(language: Language, kind: str, alipayhk: tuple[Material, str]) -> None:
    with serving(kind, *alipayhk) as (where, gateway):
        do(language, language.scenarios, variables_of(where, language))
        calls = [call for call in gateway.records() if call["event"] == "call"]
        ours = [call for call in calls if call["request_id"].startswith(f"{where.run}-{language}")]
        assert len(ours) >= FILE.read_text("utf-8").count('"method"')


@pytest.mark.parametrize("kind", KINDS)
def test_reported_outcomes_are_correct_while_the_gateway_is_killed(
    language: Language, kind: str, alipayhk: tuple[Material, str], tmp_path: Path
) -> None:
    results = tmp_path / "results.ndjson"
    with killing(kind, *alipayhk) as killed:
        storm = {"LINKAGE_STORM_S": str(STORM_S), "LINKAGE_RESULTS": str(results)}
        do(language, language.storm, variables_of(killed.where, language, **storm))
        kills = killed.kills
    comparison = compare(results, killed.where)
    print(f"{language}, {kind}: {kills} kills, {dict(comparison.outcomes)}")  # noqa: T201  (for pytest -s)
    assert comparison.wrong == []
    assert kills >= 2, kills
    assert comparison.outcomes["OK"] > 5, comparison
    assert comparison.outcomes["rejected"] > 0, comparison


@pytest.fixture(scope="module")
def gateways(
    alipayhk: tuple[Material, str], tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> Iterator[Fleet]:
    """Run three gateways with one ledger on PostgreSQL."""
    postgres.create_database("callers")
    make_key_file(key_file := tmp_path_factory.mktemp("ledger") / "ledger.key", random_bytes=os.urandom)
    with fleet(*alipayhk, postgres.url("callers"), str(key_file)) as found:
        yield found


def test_calls_are_spread_and_none_fails_or_is_sent_twice_during_a_rolling_restart(
    language: Language, gateways: Fleet, tmp_path: Path
) -> None:
    results, stop = tmp_path / "results.ndjson", tmp_path / "results.ndjson.stop"
    more = {"LINKAGE_SHARED_LEDGER": "true", "LINKAGE_DEADLINE_S": "60", "LINKAGE_STORM_S": "600"}
    variables = variables_of(gateways.where, language, LINKAGE_RESULTS=str(results), **more)
    before = received(gateways.where)
    with ThreadPoolExecutor(1) as thread:
        storm = thread.submit(do, language, language.storm, variables)
        try:
            shares = gateways.shares()
            gateways.restart_one_after_another()
        finally:
            stop.touch()
            storm.result()
    comparison, lines = compare(results, gateways.where), results.read_text("utf-8").splitlines()
    print(f"{language}: {shares}, {dict(comparison.outcomes)}")  # noqa: T201  (for pytest -s)
    assert [line for line in lines if json.loads(line)["code"] != "OK"] == []
    assert comparison.wrong == []
    assert received(gateways.where) - before == len(lines), "a request was sent twice"
    assert min(shares) >= SHARE_MIN / SIZE, shares
