"""Who may call: certificates' names, the callers they stand for, and the methods each may call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from .toml_file import read_toml

METHODS: Final = ("SyncLinkage", "BindAccount")
_MEMBERS: Final = frozenset({"san", "methods", "max_in_flight"})


@dataclass(frozen=True, slots=True)
class Caller:
    """An internal service that calls this one."""

    name: str
    methods: frozenset[str]
    max_in_flight: int | None = None
    """How many of its calls may be under way at once in one worker; None for no quota of its own."""


@dataclass(frozen=True, slots=True)
class Callers:
    """The allow-list: what is not in it is refused."""

    by_san: Mapping[str, Caller]

    def find(self, sans: Iterable[str]) -> Caller | None:
        """Return the caller that any of a certificate's names stands for."""
        return next((self.by_san[san] for san in sans if san in self.by_san), None)


ANYBODY: Final = Caller(name="", methods=frozenset(METHODS))
"""Who calls where no allow-list is configured."""


def callers_file(text: str) -> Callers:
    """Read `[callers.NAME] san = […], methods = […], max_in_flight = N` from a TOML file.

    `san` holds DNS names or URIs of the certificate's SubjectAltName. Raises ValueError with every
    fault.
    """
    data = read_toml(Path(text))
    tables = data.get("callers")
    if set(data) != {"callers"} or not isinstance(tables, dict) or not tables:
        raise ValueError("must hold tables [callers.NAME] and nothing else")
    faults: list[str] = []
    by_san: dict[str, Caller] = {}
    named: set[str] = set()
    for name, table in tables.items():
        found = list(_faults(table))
        if not found:
            caller = Caller(name, frozenset(table["methods"]), table.get("max_in_flight"))
            by_san |= dict.fromkeys(table["san"], caller)
        for san in _sans(table):
            if san in named:
                found.append(f"names {san} a second time")
            named.add(san)
        faults += [f"[callers.{name}] {fault}" for fault in found]
    if faults:
        raise ValueError("; ".join(faults))
    return Callers(by_san)


def _faults(table: object) -> Iterable[str]:
    if not isinstance(table, dict):
        yield "must be a table"
        return
    if unknown := sorted(set(table) - _MEMBERS):
        yield f"has members that are not known: {', '.join(unknown)}"
    if not _is_texts(table.get("san")):
        yield "needs san, a list of DNS names or URIs"
    methods = table.get("methods")
    if not isinstance(methods, list) or not methods or not all(name in METHODS for name in methods):
        yield f"needs methods, a list of {' and '.join(METHODS)}"
    quota = table.get("max_in_flight", 1)
    if not isinstance(quota, int) or isinstance(quota, bool) or quota < 1:
        yield "has a max_in_flight that is not a whole number from 1"


def _sans(table: object) -> list[str]:
    """Return the names of a caller, whatever else is wrong with it."""
    sans = table.get("san") if isinstance(table, dict) else None
    return cast("list[str]", sans) if _is_texts(sans) else []


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)
