"""Parse the texts of settings, from the environment and from a file, into values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

from .cross_checks import connection_age_s
from .declaration import REQUIRED
from .environment import PREFIX
from .settings_file import Unusable, below, way_out

Texts = Mapping[str, str | Unusable]


def read_values(
    declarations: Mapping[str, Field[Any]],
    of_file: Texts,
    of_environ: Mapping[str, str],
    config_file: Path | None,
    *,
    file_is_read: bool = True,
) -> tuple[dict[str, object], list[tuple[str, str]]]:
    """Return the values of valid settings by name, and the name and error of each of the others.

    If the file could not be read, it may contain each setting that is not in the environment.
    """
    values: dict[str, object] = {}
    faults: list[tuple[str, str]] = []
    for name, declaration in declarations.items():
        text = of_environ.get(name, of_file.get(name, declaration.metadata["default"]))
        if (text is None or text is REQUIRED) and not file_is_read:
            continue
        if text is None:
            values[name] = None
        elif text is REQUIRED:
            faults.append((name, f"{name.upper()} is required"))
        else:
            try:
                values[name] = parsed(declaration.metadata["parse"], text)
            except ValueError as error:
                where = _place(name, of_environ, config_file)
                faults.append((name, f"{name.upper()} {error}{where}"))
    faults += _unknown(declarations, of_file, of_environ, config_file)
    if {"ledger_url", "max_connection_age_s"} <= values.keys():
        values["max_connection_age_s"] = connection_age_s(values)
    return values, faults


def parsed(parse: Callable[[str], object], text: str | Unusable) -> object:
    """Return the value of a setting; raise ValueError with the reason."""
    if isinstance(text, Unusable):
        raise ValueError(text.why)  # noqa: TRY004  (a ValueError like those of the parsers)
    if text[0] in "'\"":
        raise ValueError("begins with a quotation mark, which env files keep: remove the quotation marks")
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{error}{below(text, str(error))}") from None


def _unknown(
    declarations: Mapping[str, Field[Any]],
    of_file: Texts,
    of_environ: Mapping[str, str],
    config_file: Path | None,
) -> Iterator[tuple[str, str]]:
    for name in sorted({*of_file, *of_environ} - declarations.keys()):
        hint = "" if name in of_environ else way_out(name, of_file[name], declarations)
        yield name, f"{name.upper()} is not a setting{_place(name, of_environ, config_file)}{hint}"


def _place(name: str, of_environ: Mapping[str, str], config_file: Path | None) -> str:
    """Return where a setting is, in the environment or in the file, if both are read."""
    if config_file is None:
        return ""
    return f" ({PREFIX}{name.upper()})" if name in of_environ else f" ({name} in {config_file})"
