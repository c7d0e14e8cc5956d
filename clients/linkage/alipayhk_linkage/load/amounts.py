"""Durations, shares and rates as people write them; a fault is a ValueError whose text is a clause."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final, TypeVar

SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST_S: Final = 30 * 24 * 3600.0
"""Far beyond it gRPC takes a deadline for one that has passed."""
_AMOUNT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-z]*)", re.ASCII)
_SHARE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)%?", re.ASCII)

_Value = TypeVar("_Value")


class Faults:
    """Everything that is wrong with what was typed, gathered so that it can be said at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def read(self, flag: str, read: Callable[[str], _Value], text: str, otherwise: _Value) -> _Value:
        """Read a flag's text; note its fault and go on with something else."""
        try:
            return read(text)
        except ValueError as error:
            self.found.append(f"{flag}: {error}")
            return otherwise

    def note(self, condition: bool, fault: str) -> None:  # noqa: FBT001  (it reads as a sentence)
        """Note a fault where the condition holds."""
        if condition:
            self.found.append(fault)


def duration(text: str) -> float:
    """Read `30s`, `500ms`, `2m`; a bare number is seconds."""
    found = _AMOUNT.fullmatch(text)
    if found is None or found[2] not in {*SECONDS, ""}:
        raise ValueError(f"{text!r} is not a duration such as 30s, 500ms or 2m")
    if (seconds := float(found[1]) * SECONDS[found[2] or "s"]) > LONGEST_S:
        raise ValueError(f"{text!r} is more than {LONGEST_S / SECONDS['h']:g}h")
    return seconds


def positive_duration(text: str) -> float:
    """Read a duration that is more than nothing."""
    if (seconds := duration(text)) <= 0:
        raise ValueError(f"{text!r} must be more than 0")
    return seconds


def limit(text: str) -> float:
    """Read a duration whose unit is said: `50` for 50 ms would be a gate that lets everything pass."""
    if text[-1:].isdigit():
        raise ValueError(f"{text!r} has no unit: write {text}ms or {text}s")
    return positive_duration(text)


def rate(text: str) -> float:
    """Read calls a second."""
    try:
        calls = float(text)
    except ValueError:
        calls = math.nan
    if not (math.isfinite(calls) and 0 <= calls <= 1e6):  # noqa: PLR2004
        raise ValueError(f"{text!r} is not a rate: calls a second, 0 to 1000000")
    return calls


def positive_rate(text: str) -> float:
    """Read calls a second, more than none."""
    if (calls := rate(text)) == 0:
        raise ValueError(f"{text!r} must be more than 0")
    return calls


def share(text: str) -> float:
    """Read `5` or `5%`, both five per cent, as 0.05."""
    found = _SHARE.fullmatch(text)
    if found is None or float(found[1]) > 100:  # noqa: PLR2004
        raise ValueError(f"{text!r} is not a share: per cent, 0 to 100")
    return float(found[1]) / 100


def percentage(text: str) -> float:
    """Read a share that may be more than the whole."""
    if not (found := _SHARE.fullmatch(text)):
        raise ValueError(f"{text!r} is not per cent")
    return float(found[1]) / 100


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return what reads a whole number between two."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def named(text: str, read: Callable[[str], _Value]) -> dict[str, _Value]:
    """Read `name=value,name=value`; raise one ValueError that names every fault."""
    values: dict[str, _Value] = {}
    faults = []
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not name or not equals:
            faults.append(f"{part.strip()!r} is not name=value")
        elif name in values:
            faults.append(f"{name} is given twice")
        else:
            try:
                values[name] = read(value)
            except ValueError as error:
                faults.append(f"{name}: {error}")
    if faults:
        raise ValueError("; ".join(faults))
    return values
