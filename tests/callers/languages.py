"""How each language's own toolchain builds its caller and runs its tests."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Language:
    """A caller in one language."""

    name: str
    directory: str
    """Where its commands are run, below the repository."""
    needs: tuple[str, ...]
    """Programs that must be on the PATH."""
    prepare: tuple[Command, ...]
    """What fetches and builds, once."""
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
