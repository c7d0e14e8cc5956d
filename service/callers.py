"""Who may call: certificates' names, the callers they stand for, and the methods each may call."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, cast

from .toml_file import read_toml

METHODS: Final = ("SyncLinkage", "BindAccount")
_MEMBERS: Final = frozenset({"san", "methods", "max_in_flight"})
_DNS: Final = re.compile(r"[A-Za-z0-9_*.-]+")
_URI: Final = re.compile(r"[!-~]+")


class Name(NamedTuple):
    """One name of a SubjectAltName that can be a caller's."""

    kind: Literal["DNS", "URI"]
    text: str

    @property
    def key(self) -> Name:
        """The name as it is compared: DNS names without regard to case, URIs to the letter."""
        return Name("DNS", self.text.lower()) if self.kind == "DNS" else self


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

    by_name: Mapping[Name, Caller]
    """Callers by the keys of their names."""

    def find(self, names: Iterable[Name]) -> tuple[Caller, ...]:
        """Return every caller that a certificate with these names belongs to; a good one belongs to one."""
        found = {caller.name: caller for name in names if (caller := self.by_name.get(name.key))}
        return tuple(found.values())


ANYBODY: Final = Caller(name="", methods=frozenset(METHODS))
"""Who calls where no allow-list is configured."""


def callers_file(text: str) -> Callers:
    """Read `[callers.NAME] san = […], methods = […], max_in_flight = N` from a TOML file.

    `san` holds DNS names or URIs (with `://`) of the certificate's SubjectAltName. Raises ValueError with
    every fault.
    """
    data = read_toml(Path(text))
    tables = data.get("callers")
    if set(data) != {"callers"} or not isinstance(tables, dict) or not tables:
        raise ValueError("must hold tables [callers.NAME] and nothing else")
    faults: list[str] = []
    by_name: dict[Name, Caller] = {}
    named: set[Name] = set()
    for name, table in tables.items():
        found = list(_faults(table))
        if not found:
            caller = Caller(name, frozenset(table["methods"]), table.get("max_in_flight"))
            by_name |= dict.fromkeys((_name_of(san).key for san in table["san"]), caller)
        for san in _sans(table):
            key = _name_of(san).key
            if key in named and not _fault_of(san):
                found.append(f"names {san} a second time")
            named.add(key)
        faults += [f"[callers.{name}] {fault}" for fault in found]
    if faults:
        raise ValueError("; ".join(faults))
    return Callers(by_name)


def _faults(table: object) -> Iterable[str]:
    if not isinstance(table, dict):
        yield "must be a table"
        return
    if unknown := sorted(set(table) - _MEMBERS):
        yield f"has members that are not known: {', '.join(unknown)}"
    if not _is_texts(table.get("san")):
        yield "needs san, a list of DNS names or URIs"
    for place, san in enumerate(_sans(table), 1):
        if fault := _fault_of(san):
            yield f"has as item {place} of san {fault}; only DNS names and URIs name a caller"
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


def _name_of(san: str) -> Name:
    return Name("URI" if "://" in san else "DNS", san)


def _fault_of(san: str) -> str:
    """Say what a name is that can name no caller, without its text, which may be personal data."""
    if "@" in san:
        return "an e-mail address or a URI with an @"
    if _is_ip_address(san):
        return "an IP address"
    name = _name_of(san)
    pattern = _URI if name.kind == "URI" else _DNS
    return "" if pattern.fullmatch(name.text) else f"what cannot be a {name.kind} name"


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)
