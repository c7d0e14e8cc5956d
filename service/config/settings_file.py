"""Read the settings from a TOML file, as the texts that the environment would contain."""

from __future__ import annotations

import os
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .environment import PREFIX
from .toml import read_toml

PAIRED: Final = ("public_key_files", "decryption_key_files", "signing_key_files")
"""Settings of the form `version=path,version=path`, which can also be TOML tables."""


_UNREADABLE: Final = "cannot be read: "


@dataclass(frozen=True, slots=True)
class Unusable:
    """A value that no setting can have, such as a list, a date, or an unexpected table."""

    why: str
    is_table: bool = False


def texts_of_file(path: Path | None, faults: list[str]) -> dict[str, str | Unusable]:
    """Return the settings in the file by name; append the errors of the file to `faults`."""
    if path is None:
        return {}
    try:
        members = read_toml(path)
    except ValueError as error:
        faults.append(f"--config {path} {error}{below(str(path), str(error))}")
        return {}
    texts = {}
    for written, value in members.items():
        name = written.lower()
        if name != written:
            faults.append(f"{name.upper()} must be in lower case in --config")
        text = _pairs(value) if name in PAIRED and isinstance(value, dict) else _text(value)
        if text != "":  # an empty text or table counts as absent, as an empty variable does
            texts[name] = text
    return texts


def way_out(name: str, value: str | Unusable, settings: Container[str]) -> str:
    """Return what to write in the file in place of an unknown name, if it is clear what was meant."""
    meant = name.removeprefix(PREFIX.lower()).replace("-", "_")
    if meant in settings:
        return f": write {meant}"
    if isinstance(value, Unusable) and value.is_table:
        return f": put its settings at the top of the file, without [{name}]"
    return ""


def below(text: str, fault: str) -> str:
    """Return where a file was looked for: the part of its path that exists, if the file cannot be read.

    `text` is one path, or `version=path,version=path`. No other part of it is returned, because a secret
    can be pasted into the wrong setting.
    """
    if _UNREADABLE not in fault or "\0" in text:
        return ""
    unread = (path for path in paths_in(text) if path and not os.access(path, os.R_OK))
    found = dict.fromkeys(map(_directory, unread))
    return f" (below {', '.join(found)})" if found else ""


def paths_in(text: str) -> list[str]:
    """Return the paths in a setting that names files: one path, or `version=path,version=path`."""
    if "=" not in text or os.path.lexists(text):
        return [text]
    return [part.strip().partition("=")[2] for part in text.split(",")]


def _directory(path: str) -> str:
    """Return the longest part of a path that is a directory, as an absolute path."""
    place = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120  (these never raise OSError)
    while not os.path.isdir(place):  # noqa: PTH112
        place = os.path.dirname(place)  # noqa: PTH120
    return place


def _pairs(table: dict[str, object]) -> str | Unusable:
    texts = {key: _text(value) for key, value in table.items()}
    unusable = (text for text in texts.values() if isinstance(text, Unusable))
    return next(unusable, ",".join(f"{key}={text}" for key, text in texts.items()))


def _text(value: object) -> str | Unusable:
    if not isinstance(value, (str, bool, int, float)):
        return Unusable("must be text, a number, true or false", is_table=isinstance(value, dict))
    try:
        return str(value).lower() if isinstance(value, bool) else str(value)
    except ValueError:  # Python refuses to convert an integer of thousands of digits to text
        return Unusable("is too large")
