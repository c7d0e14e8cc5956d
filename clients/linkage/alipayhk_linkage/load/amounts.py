"""Parse durations, shares and rates from the command line; raise ValueError for invalid text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final, TypeVar

SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST_S: Final = 30 * 24 * 3600.0
"""gRPC treats a deadline far beyond this as one in the past."""
_AMOUNT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-z]*)", re.ASCII)
_SHARE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)%?", re.ASCII)

_Value = TypeVar("_Value")


class Faults:
    """Collects all faults of a command line, so that one error can name them all."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def read(self, flag: str, read: Callable[[str], _Value], text: str, default: _Value) -> _Value:
        """Parse a flag's text; if it is invalid, note the fault and return the default."""
        try:
            return read(text)
        except ValueError as error:
            self.found.append(f"{flag}: {error}")
            return default

    def note(self, condition: bool, fault: str) -> None:  # noqa: FBT001  (the call reads like `if`)
        """Note the fault if the condition is true."""
        if condition:
            self.found.append(fault)


def duration(text: str) -> float:
    """Parse a duration such as `30s`, `500ms` or `2m`; return seconds. A number without unit is seconds."""
    found = _AMOUNT.fullmatch(text)
    if found is None or found[2] not in {*SECONDS, ""}:
        raise ValueError(f"{text!r} is not a duration such as 30s, 500ms or 2m")
    if (seconds := float(found[1]) * SECONDS[found[2] or "s"]) > LONGEST_S:
        raise ValueError(f"{text!r} is more than {LONGEST_S / SECONDS['h']:g}h")
    return seconds


def positive_duration(text: str) -> float:
    """Parse a duration that is more than 0; return seconds."""
    if (seconds := duration(text)) <= 0:
        raise ValueError(f"{text!r} must be more than 0")
    return seconds


def limit(text: str) -> float:
    """Parse a duration with a unit; return seconds. `50`, meant as 50 ms, would be a gate of 50 s."""
    if text[-1:].isdigit():
        raise ValueError(f"{text!r} has no unit: write {text}ms or {text}s")
    return positive_duration(text)


def rate(text: str) -> float:
    """Parse a rate in calls per second."""
    try:
        calls = float(text)
    except ValueError:
        calls = math.nan
    if not (math.isfinite(calls) and 0 <= calls <= 1e6):  # noqa: PLR2004
        raise ValueError(f"{text!r} is not a rate: calls per second, 0 to 1000000")
    return calls


def positive_rate(text: str) -> float:
    """Parse a rate in calls per second that is more than 0."""
    if (calls := rate(text)) == 0:
        raise ValueError(f"{text!r} must be more than 0")
    return calls


def share(text: str) -> float:
    """Parse per cent: `5` and `5%` are both 0.05."""
    found = _SHARE.fullmatch(text)
    if found is None or float(found[1]) > 100:  # noqa: PLR2004
        raise ValueError(f"{text!r} is not a share: per cent, 0 to 100")
    return float(found[1]) / 100


def percentage(text: str) -> float:
    """Parse per cent that can be more than 100."""
    if not (found := _SHARE.fullmatch(text)):
        raise ValueError(f"{text!r} is not a percentage")
    return float(found[1]) / 100


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a parser for a whole number from `low` to `high`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def named(text: str, read: Callable[[str], _Value]) -> dict[str, _Value]:
    """Parse `name=value,name=value`; raise one ValueError that names every fault."""
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
