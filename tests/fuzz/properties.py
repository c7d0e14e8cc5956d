"""What must hold of every error, and an independent reading of JSON to compare with."""

from __future__ import annotations

import ast
import errno
import json
import math
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from clients.alipayhk.wire.strict_json import DEPTH_MAX

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = (
    "clients/alipayhk",
    "service/commands/doctor",
    "service/config",
    "service/ledger",
    "service/server",
)
LITERAL_MIN: Final = 2
_BETWEEN: Final = re.compile(r"[0-9 .,:;()'-]")
"""What can be between the constant parts of an error text: numbers and punctuation."""

Value = TypeVar("Value")


def result_of(
    kind: type[Exception], read: Callable[..., Value], *arguments: object, **options: object
) -> Value | None:
    """Call `read`; return None if it raises a documented error, which must quote nothing of the input."""
    try:
        return read(*arguments, **options)
    except kind as error:
        check_error(error)
        return None


def check_error(error: BaseException) -> None:
    """Fail if an error has a text that is not from the source, or shows another library's error."""
    assert is_constant(str(error)), f"{type(error).__name__} has a text that is not constant: {error}"
    shown = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert shown is None, f"{type(error).__name__} shows {type(shown).__name__}"


@cache
def is_constant(text: str) -> bool:
    """Return whether a text is made of string constants of the source, numbers and punctuation only."""
    reached = [True] + [False] * len(text)
    for at in range(len(text)):
        if reached[at]:
            ends = [at + 1] if _BETWEEN.match(text, at) else []
            ends += [at + len(literal) for literal in literals() if text.startswith(literal, at)]
            for end in ends:
                reached[end] = True
    return reached[-1]


@cache
def literals() -> frozenset[str]:
    """Return the string constants of SOURCES, also those in f-strings, and the system's error texts."""
    trees = (
        ast.parse(path.read_text("utf-8")) for source in SOURCES for path in (ROOT / source).rglob("*.py")
    )
    constants = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return frozenset(map(os.strerror, errno.errorcode)).union(
        text for text in constants if isinstance(text, str) and len(text) >= LITERAL_MIN
    )


def json_object(data: bytes) -> dict[str, object] | None:
    """Return what `read_object(data, huge_as_infinite=True)` must return; None if it must refuse `data`.

    It uses `json` alone: no code of the project.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse, parse_int=_integer
        )
        value = _without_surrogates(value)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _depth(value) <= DEPTH_MAX else None


def same(value: object, other: object) -> bool:
    """Compare parsed JSON by its types too: 1, 1.0 and true are equal in Python."""
    return repr(value) == repr(other)


def has_infinity(value: object) -> bool:
    """Return whether parsed JSON contains a number that is too large to be written."""
    if isinstance(value, dict):
        return any(map(has_infinity, value.values()))
    if isinstance(value, list):
        return any(map(has_infinity, value))
    return isinstance(value, float) and math.isinf(value)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("two members have the same name")
    return dict(pairs)


def _refuse(_: str) -> NoReturn:
    raise ValueError("NaN or an infinity")


def _integer(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return -math.inf if text.startswith("-") else math.inf


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return _once(
            [(str(_without_surrogates(name)), _without_surrogates(item)) for name, item in value.items()]
        )
    return value
