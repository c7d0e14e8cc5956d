"""The clients of all languages report the same outcomes, and correct ones while the gateway is killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import pytest

from tests.callers.languages import LANGUAGES, Language, do, variables_of
from tests.callers.storm import compare, killing
from tests.e2e.material import Material
from tests.linkage.scenes import FILE
from tests.linkage.where import KINDS, a_sandbox, serving

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
