"""The commands that build and test the client of each language with its toolchain."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from tests.linkage.scenes import FILE
from tests.linkage.where import Where
from tests.peers.processes import ROOT, environment, run

WAIT_MAX_S: Final = 600.0
"""The timeout of a build that downloads its dependencies."""

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Language:
    """The client in one language."""

    name: str
    directory: str
    """The working directory of its commands, relative to the repository."""
    needs: tuple[str, ...]
    """Programs that must be on the PATH."""
    prepare: tuple[Command, ...]
    """The commands that download dependencies and build, once."""
    scenarios: Command
    storm: Command

    def __str__(self) -> str:
        return self.name


PYTEST: Final = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")

LANGUAGES: Final = (
    Language(
        "python",
        ".",
        (),
        (),
        (*PYTEST, "tests/linkage/test_scenarios.py"),
        (*PYTEST, "-m", "callers", "tests/linkage/test_storm.py"),
    ),
    Language(
        "go",
        "clients/go",
        ("go",),
        (("go", "mod", "download"), ("go", "vet", "./..."), ("go", "test", "./linkage", "./linkagev1")),
        ("go", "test", "-count=1", "-v", "-run", "^TestScenarios$", "./scenarios"),
        ("go", "test", "-count=1", "-v", "-run", "^TestStorm$", "./scenarios"),
    ),
    Language(
        "node",
        "clients/node",
        ("node", "npm"),
        (("npm", "ci"), ("npm", "run", "build"), ("npm", "run", "test:unit")),
        ("npm", "run", "test:scenarios"),
        ("npm", "run", "test:storm"),
    ),
    Language(
        "java",
        "clients/java",
        ("javac", "mvn"),
        (("mvn", "-B", "-q", "test"),),
        ("mvn", "-B", "-q", "-o", "test", "-Dtest=Scenarios"),
        ("mvn", "-B", "-q", "-o", "test", "-Dtest=Storm"),
    ),
)


def do(language: Language, command: Command, variables: dict[str, str]) -> None:
    """Run one of a language's commands, which must succeed."""
    # The settings of this pytest process must not reach the pytest of the Python client.
    outside = {n: v for n, v in environment().items() if n not in {"PYTEST_ADDOPTS", "COV_CORE_SOURCE"}}
    cwd = ROOT / language.directory
    result = run(*command, env=outside | variables, cwd=cwd, timeout_s=WAIT_MAX_S)
    assert result.status == 0, f"{command} in {cwd}:\n{result.output[-20_000:]}"


def variables_of(where: Where, language: Language, **more: str) -> dict[str, str]:
    """Return the environment variables for a language's tests."""
    run_of = f"{where.run}-{language}"
    return {**where.environment, "LINKAGE_RUN": run_of, "LINKAGE_SCENARIOS": str(FILE), **more}
