"""The table of mutants that no test needs to detect."""

from __future__ import annotations

import tomllib
from typing import Final

from tests.test_house import ROOT

TABLE: Final = tomllib.loads((ROOT / "tests/mutants/explained.toml").read_text("utf-8"))["group"]


def words(text: str) -> str:
    return " ".join(text.split())


def test_explained_mutants_are_changes_of_present_code() -> None:
    absent = [
        f"{group['file']}: {before}"
        for group in TABLE
        for before, _ in group["changes"]
        if words(before) not in words((ROOT / group["file"]).read_text("utf-8"))
    ]
    assert absent == []


def test_every_explained_mutant_has_a_reason() -> None:
    assert [group for group in TABLE if not group["why"].endswith(".")] == []
