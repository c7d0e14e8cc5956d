"""The allowed callers: the names in their certificates, and the methods that each can call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

from clients.alipayhk.api import API_NAMES


class Name(NamedTuple):
    """A name of a SubjectAltName that can identify a caller."""

    kind: Literal["DNS", "URI"]
    text: str

    @property
    def key(self) -> Name:
        """The name in the form that is compared: DNS names in lower case, URIs unchanged."""
        return Name("DNS", self.text.lower()) if self.kind == "DNS" else self


@dataclass(frozen=True, slots=True)
class Caller:
    """An internal service that calls this one."""

    name: str
    methods: frozenset[str]
    max_in_flight: int | None = None
    """Maximum number of its calls in flight in one worker; None for no limit."""


@dataclass(frozen=True, slots=True)
class Callers:
    """The allow-list."""

    by_name: Mapping[Name, Caller]
    """Callers by the `key` of each of their names."""
    file: Path | None = field(default=None, compare=False)
    """The file that they were read from."""

    def find(self, names: Iterable[Name]) -> tuple[Caller, ...]:
        """Return the callers of these names; a valid certificate identifies exactly one caller."""
        found = {caller.name: caller for name in names if (caller := self.by_name.get(name.key))}
        return tuple(found.values())


ANYBODY: Final = Caller(name="", methods=frozenset(API_NAMES))
"""The caller of every call if there is no allow-list."""
