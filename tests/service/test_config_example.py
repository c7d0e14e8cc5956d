"""`config example`: a settings file with every setting, which `serve` accepts once it is filled in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.commands.cli import main
from service.config.declaration import REQUIRED, declared
from service.config.settings import Settings, SettingsError, read_settings
from service.config.settings_file import texts_of_file

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def example(capsys: Captured) -> str:
    assert main(["config", "example"]) == 0
    return capsys.readouterr().out


def without_comments(text: str) -> str:
    """Remove the comment sign from every line that sets a value."""
    return re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)


def test_the_example_has_every_setting_with_its_default_and_meaning(example: str, tmp_path: Path) -> None:
    (file := tmp_path / "gateway.toml").write_text(without_comments(example), "utf-8")
    faults: list[str] = []
    texts = texts_of_file(file, faults)
    defaults = {name: field.metadata["default"] for name, field in declared(Settings)}
    given = {name: text for name, text in defaults.items() if text not in (None, REQUIRED)}
    assert (texts, faults) == (given, [])
    assert re.findall(r"^(?:# )?(\w+) = ", example, re.MULTILINE) == list(defaults)
    for name, field in declared(Settings):
        comment, _, _ = example.partition(f"{name} = ")
        said = " ".join(comment.rpartition("\n\n")[2].replace("\n", " ").replace("#", " ").split())
        assert said.removesuffix(" Required.") == field.metadata["meaning"]


def faults(config_file: Path | None) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        read_settings({}, config_file)
    return raised.value.faults


def test_the_example_sets_nothing_until_it_is_filled_in(example: str, tmp_path: Path) -> None:
    (file := tmp_path / "gateway.toml").write_text(example, "utf-8")
    assert faults(file) == faults(None)
