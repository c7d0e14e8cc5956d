"""Callers in every language see the same, and are never told wrong, whatever becomes of the gateway."""

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
"""Long enough that some calls get through on a busy machine, though the gateway is hardly ever up."""

pytestmark = pytest.mark.callers


@pytest.fixture(scope="module", params=LANGUAGES, ids=str)
def language(request: pytest.FixtureRequest) -> Language:
    """Return a language whose caller is built."""
    language = cast("Language", request.param)
    missing = [program for program in language.needs if shutil.which(program) is None]
    assert missing == [], f"{language} needs {missing}: .ci/run installs them."
    for command in language.prepare:
        do(language, command, {})
    return language


@pytest.fixture(scope="module")
def alipayhk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Material, str]]:
    """Return a sandbox's keys and URL."""
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
def test_nobody_is_told_wrong(
    language: Language, kind: str, alipayhk: tuple[Material, str], tmp_path: Path
) -> None:
    reported = tmp_path / "told.ndjson"
    with killing(kind, *alipayhk) as mortal:
        storm = {"LINKAGE_STORM_S": str(STORM_S), "LINKAGE_TOLD": str(reported)}
        do(language, language.storm, variables_of(mortal.where, language, **storm))
        kills = mortal.kills
    found = compare(reported, mortal.where)
    print(f"{language}, {kind}: {kills} kills, {dict(found.reported)}")  # noqa: T201  (figures for -s)
    assert found.wrong == []
    assert kills >= 2, kills
    assert found.reported["OK"] > 5, found
    assert found.reported["rejected"] > 0, found
