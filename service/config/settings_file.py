"""The settings' TOML file: its members as the environment would hold them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .toml import read_toml

PAIRED: Final = ("public_key_files", "decryption_key_files")
"""Settings that hold `version=path,version=path`, and may be tables."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """What the environment could not hold: a list, a date, a table where none is meant."""

    why: str


def texts_of_file(path: Path | None, faults: list[str]) -> dict[str, str | Unusable]:
    """Read the file's settings by name; add what is wrong with the file to the faults."""
    if path is None:
        return {}
    try:
        members = read_toml(path)
    except ValueError as error:
        faults.append(f"--config {error}")
        return {}
    texts = {}
    for written, value in members.items():
        name = written.lower()
        if name != written:
            faults.append(f"{name.upper()} is written in lower case in --config")
        if value != "":
            texts[name] = _pairs(value) if name in PAIRED and isinstance(value, dict) else _text(value)
    return texts


def _pairs(table: dict[str, object]) -> str | Unusable:
    texts = {key: _text(value) for key, value in table.items()}
    unusable = (text for text in texts.values() if isinstance(text, Unusable))
    return next(unusable, ",".join(f"{key}={text}" for key, text in texts.items()))


def _text(value: object) -> str | Unusable:
    if not isinstance(value, (str, bool, int, float)):
        return Unusable("must be text, a number, true or false")
    try:
        return str(value).lower() if isinstance(value, bool) else str(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        return Unusable("is too large a number")
