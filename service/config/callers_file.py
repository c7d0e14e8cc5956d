"""Read CALLERS_FILE: the callers, the names in their certificates, and the methods each is allowed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, cast

from clients.alipayhk.api import API_NAMES

from ..credentials.callers import Caller, Callers, Name
from .toml import read_toml

_MEMBERS: Final = frozenset({"san", "methods", "max_in_flight"})
_DNS: Final = re.compile(r"[A-Za-z0-9_*.-]+")
_URI: Final = re.compile(r"[!-~]+")


def callers_file(text: str) -> Callers:
    """Read `[callers.NAME] san = […], methods = […], max_in_flight = N` from a TOML file.

    `san` lists DNS names or URIs (with `://`) of the certificate's SubjectAltName. Raise ValueError with
    every error.
    """
    data = read_toml(file := Path(text))
    tables = data.get("callers")
    if set(data) != {"callers"} or not isinstance(tables, dict) or not tables:
        raise ValueError("must contain tables [callers.NAME] and nothing else")
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
    return Callers(by_name, file)


def _faults(table: object) -> Iterable[str]:
    if not isinstance(table, dict):
        yield "must be a table"
        return
    if unknown := sorted(set(table) - _MEMBERS):
        yield f"has unknown members: {', '.join(unknown)}"
    if not _is_texts(table.get("san")):
        yield "needs san, a list of DNS names or URIs"
    for place, san in enumerate(_sans(table), 1):
        if fault := _fault_of(san):
            yield f"has {fault} as item {place} of san; use DNS names or URIs"
    methods = table.get("methods")
    if not isinstance(methods, list) or not methods or not all(name in API_NAMES for name in methods):
        yield f"needs methods, a list of {' and '.join(API_NAMES)}"
    quota = table.get("max_in_flight", 1)
    if not isinstance(quota, int) or isinstance(quota, bool) or quota < 1:
        yield "needs max_in_flight as a whole number of at least 1"


def _sans(table: object) -> list[str]:
    """Return the names of a caller, even if its table has other errors."""
    sans = table.get("san") if isinstance(table, dict) else None
    return cast("list[str]", sans) if _is_texts(sans) else []


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)


def _name_of(san: str) -> Name:
    return Name("URI" if "://" in san else "DNS", san)


def _fault_of(san: str) -> str:
    """Return why a name cannot identify a caller, else ""; without its text, which can be personal data."""
    if "@" in san:
        return "an e-mail address or a URI with an @"
    if _is_ip_address(san):
        return "an IP address"
    name = _name_of(san)
    pattern = _URI if name.kind == "URI" else _DNS
    return "" if pattern.fullmatch(name.text) else f"an invalid {name.kind} name"


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
