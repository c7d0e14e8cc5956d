"""Whether a ledger may be opened, or made: what its database says, compared with its key's marker.

A ledger that is lost, emptied or put back from an older copy does not know the requests that were sent
since. Opened as if it were whole, it would let a BindAccount be sent twice. So a database is made only
where the key cannot have had one, and one that is there is opened only if nothing says that it is older
than what the key has seen. Every other case is refused with a sentence that names the way out.

These rules are pure, and the same for every engine: an engine says what it found (`Found`, `Absence`).

| database | marker | |
|---|---|---|
| absent | the key is made in this start | make it |
| absent | names no ledger, and can be written | make it |
| absent | none, key configured and file missing, and the marker can be written | make it |
| absent | anything else | refuse |
| there  | names it; its token is at most the database's | open it |
| there  | names it; its token is higher | refuse: an older copy |
| there  | names no ledger, or there is none; the database is whole | adopt it: open it, write the marker |
| there  | names no ledger, or there is none; the database is not whole | refuse |
| there  | names it elsewhere, and another one here | refuse |
| there  | names others only | refuse |

An upgrade needs no operator by the seventh line: the first start of a version with markers finds a
database and no marker, and adopts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .marker import Entries, Marker


class Absence(StrEnum):
    """How a database can be absent."""

    MISSING = "is missing"
    EMPTY = "is empty"
    NO_TABLES = "has no tables"


@dataclass(frozen=True, slots=True)
class Found:
    """What a database says of itself."""

    key_id: str
    key_check: bytes
    ledger_id: str | None
    """None in a database that was made before ledgers had ids."""
    token: int
    """The last fencing token that it granted."""
    is_whole: bool
    """Whether all that was committed is in it: it was closed cleanly, or has its log."""


def refusal_to_make(
    absence: Absence, where: str, marker: Marker, *, makes_key: bool, key_is_configured: bool
) -> str | None:
    """Return why no ledger must be made, None where one may; raise LedgerFault for a damaged marker."""
    if makes_key:
        return None
    entries = marker.read()
    start_new = "start a new one beside this key with: alipayhk-gateway ledger init"
    put_back = (
        "put it back, restore a backup with: alipayhk-gateway ledger restore FILE, or, if what it knew "
        f"may be forgotten, {start_new} --new"
    )
    if entries:
        return f"the ledger {where} {absence}, and {marker.path} says that its key has had one: {put_back}"
    if not marker.can_be_written():
        return refusal_without_marker(absence, where, marker)
    may_be_first = key_is_configured and absence is Absence.MISSING
    if entries is None and not may_be_first:
        return (
            f"the ledger {where} {absence}, and its key was there before: put the ledger back, restore "
            "a backup with: alipayhk-gateway ledger restore FILE, or, if there was none, "
            f"{start_new}"
        )
    return None


def refusal_without_marker(absence: Absence, where: str, marker: Marker, cause: str = "") -> str:
    """Return why no ledger must be made whose marker cannot be written, with the cause if it is known."""
    because = f" ({cause})" if cause else ""
    return (
        f"the ledger {where} {absence}, and whether its key has had one cannot be known, because "
        f"{marker.path} cannot be written{because}: restore a backup with: alipayhk-gateway ledger restore "
        f"FILE, or, before the very first start, make it once with: alipayhk-gateway ledger init"
    )


def refusal_to_open(found: Found, where: str, log: str, marker: Marker) -> str | None:
    """Return why a database must not be opened, None where it may; raise LedgerFault as above.

    `log` is the name of the database's write-ahead log, which is named where it is missing.
    """
    entries: Entries = marker.read() or {}
    accept = "or accept the one that is there with: alipayhk-gateway ledger restore"
    if not entries:
        if found.is_whole:
            return None
        return (
            f"the ledger {where} was not closed cleanly and its write-ahead log {log} is missing, and no "
            f"{marker.path} says how far it was: put the missing files back, {accept}"
        )
    entry = entries.get(found.ledger_id or "")
    if entry is None:
        return (
            f"the ledger {where} is none of those that {marker.path} names: it is an older copy, or "
            f"another key's: put the right one back, {accept}"
        )
    if entry.where != where and any(other.where == where for other in entries.values()):
        return (
            f"the ledger {where} was used at {entry.where} before, and {marker.path} says that another one "
            f"was used here since: put that one back, {accept}"
        )
    if found.token < entry.token:
        cause = "is an older copy" if found.is_whole else f"lacks its write-ahead log {log}"
        return (
            f"the ledger {where} {cause}: its last token is {found.token}, and {marker.path} has seen "
            f"{entry.token}: put the newer one back, {accept}"
        )
    return None
