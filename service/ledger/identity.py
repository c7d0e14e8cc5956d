"""Decide whether a ledger may be opened or created, from its database and the marker of its key.

A ledger that was lost, emptied or replaced by an older copy does not know the requests that were sent
since. If it were opened like a complete one, a BindAccount could be sent twice. So a database is created
only if its key cannot have had one, and an existing one is opened only if nothing shows that it is older
than the key's last use. Otherwise the refusal is a sentence that names the way out.

The rules are pure, and the same for every engine. An engine reports what it found (`Found`, `Absence`).

| database | marker | decision |
|---|---|---|
| absent  | the key is created in this start | create it |
| absent  | lists no ledger, and can be written | create it |
| absent  | missing but can be written; key configured, file missing or database empty | create it |
| absent  | anything else | refuse |
| present | lists it; its token is at most the database's | open it |
| present | lists it; its token is higher | refuse: an older copy |
| present | missing, or lists no ledger; the database is complete | adopt it: open it, write the marker |
| present | missing, or lists no ledger; the database is not complete | refuse |
| present | lists it at another path, and another ledger at this path | refuse |
| present | lists another one at this place, which an operator has replaced by this one | open it |
| present | lists only others | refuse |

The last but one is for a database that several hosts share: the operator's command ran on one of them, and
the database records which ids it has replaced.

An upgrade needs no operator because of the seventh row: the first start of a version with markers finds a
database without a marker, and adopts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from . import LedgerFault
from .marker import Entries, Marker

RESTORE_FILE: Final = "alipayhk-gateway ledger restore FILE"


class Absence(StrEnum):
    """How a database is absent."""

    MISSING = "is missing"
    EMPTY = "is empty"
    NO_TABLES = "has no tables"
    EMPTY_DATABASE = "is an empty database"


@dataclass(frozen=True, slots=True)
class Found:
    """The identity and the state that a database contains."""

    key_id: str
    key_check: bytes
    ledger_id: str | None
    """None in a database from a version without ledger ids."""
    token: int
    """The last fencing token that it granted."""
    is_whole: bool
    """Whether it has everything that was committed: it was closed cleanly, or has its log."""
    former_ids: tuple[str, ...] = ()
    """The ids of the ledgers that an operator has replaced by this one."""


@dataclass(frozen=True, slots=True)
class KeyMark:
    """The values that a database stores to recognize its key."""

    key_id: str
    key_check: bytes

    def must_fit(self, where: str | Path, key_id: str, key_check: bytes) -> None:
        """Raise LedgerFault if a database was created with another key."""
        if key_check != self.key_check:
            raise LedgerFault(
                f"the ledger {where} was created with another key (its id is {key_id}, "
                f"that of LEDGER_KEY_FILE is {self.key_id}): put the right key back"
            )


def refusal_to_make(
    absence: Absence,
    where: str,
    marker: Marker,
    entries: Entries | None,
    *,
    makes_key: bool,
    key_is_configured: bool,
    restore: str = RESTORE_FILE,
) -> str | None:
    """Return why no ledger may be created, or None; `entries` are what the marker contains."""
    if makes_key:
        return None
    start_new = "start a new one for this key with: alipayhk-gateway ledger init"
    put_back = (
        f"put it back, restore a backup with: {restore}, or, if losing its "
        f"records is acceptable, {start_new} --new"
    )
    if entries:
        return f"the ledger {where} {absence}, and {marker.path} shows that its key has had one: {put_back}"
    if not marker.can_be_written():
        return _without_marker(absence, where, marker, "", restore)
    may_be_first = key_is_configured and absence in {Absence.MISSING, Absence.EMPTY_DATABASE}
    if entries is None and not may_be_first:
        return (
            f"the ledger {where} {absence}, and its key existed before: put the ledger back, restore a "
            f"backup with: {restore}, or, if there was no ledger, {start_new}"
        )
    return None


def refuse_another(marker: Marker, restore: str = RESTORE_FILE) -> None:
    """Raise LedgerFault if a key has had a ledger, so that a first one cannot be created for it."""
    if marker.read():
        raise LedgerFault(
            f"{marker.path} shows that this key has had a ledger: restore a backup with: {restore}, or, if "
            "losing its records is acceptable, start a new one with: alipayhk-gateway ledger init --new"
        )


def begin_marker(
    marker: Marker, absence: Absence, where: str, *, needs_marker: bool, restore: str = RESTORE_FILE
) -> None:
    """Write a marker before its ledger is created; raise LedgerFault if that fails, or do without it."""
    try:
        marker.change(lambda entries: entries, must_write=True)
    except OSError as error:
        if needs_marker:
            cause = error.strerror or type(error).__name__
            raise LedgerFault(_without_marker(absence, where, marker, cause, restore)) from None


def _without_marker(absence: Absence, where: str, marker: Marker, cause: str, restore: str) -> str:
    """Return why no ledger may be created whose marker cannot be written, with the cause if known."""
    because = f" ({cause})" if cause else ""
    return (
        f"the ledger {where} {absence}, and it is unknown whether its key has had one, because "
        f"{marker.path} cannot be written{because}: restore a backup with: {restore}, or, before the "
        "very first start, create it once with: alipayhk-gateway ledger init"
    )


def refusal_to_open(
    found: Found, where: str, log: str, marker: Marker, entries: Entries | None
) -> str | None:
    """Return why a database may not be opened, or None.

    `entries` are what the marker contained before the database was read: another process may use the
    database, so a later marker can be ahead of what was read. `log` names the database's write-ahead log.
    """
    entries = entries or {}
    accept = "or accept the present one with: alipayhk-gateway ledger restore"
    has_replaced_one = found.ledger_id not in entries and any(
        entries[one].where == where for one in entries.keys() & set(found.former_ids)
    )
    if has_replaced_one or (not entries and found.is_whole):
        return None
    if not entries:
        return (
            f"the ledger {where} was not closed cleanly and its write-ahead log {log} is missing, and no "
            f"{marker.path} gives its last token: put the missing files back, {accept}"
        )
    entry = entries.get(found.ledger_id or "")
    if entry is None:
        return (
            f"the ledger {where} is not listed in {marker.path}: it is an older copy, belongs to another "
            f"key, or `ledger init --new` on another host made it: put the right one back, {accept}"
        )
    if entry.where != where and any(other.where == where for other in entries.values()):
        return (
            f"the ledger {where} was used at {entry.where} before, and according to {marker.path} another "
            f"one has been used here since: put that one back, {accept}"
        )
    if found.token < entry.token:
        cause = "is an older copy" if found.is_whole else f"lacks its write-ahead log {log}"
        return (
            f"the ledger {where} {cause}: its last token is {found.token}, but {marker.path} records "
            f"{entry.token}: put the newer one back, {accept}"
        )
    return None
