"""Who may call: certificates' names, the callers they stand for, and the methods each may call."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from clients.alipayhk.api import API_NAMES

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


ANYBODY: Final = Caller(name="", methods=frozenset(API_NAMES))
"""Who calls where no allow-list is configured."""


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
