"""What an operator does with the whole ledger in a database: migrate, create, accept after a restore."""

from __future__ import annotations

from dataclasses import dataclass

from .. import LedgerFault
from ..identity import Found, refuse_another
from ..marker import Entry
from ..vault import RandomBytes
from .database import Server, connected
from .opening import RESTORE, Place, create_ledger, inspect, migrate
from .statements import GRANTS, LOCK_SCHEMA, META, RESTORED, ROLE, SCHEMA, SUMMARY
from .url import where_of


@dataclass(frozen=True, slots=True)
class Migrated:
    """The versions of the schema."""

    where: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Created:
    """A new ledger."""

    ledger_id: str
    key_id: str
    marker_fault: str
    """Why the marker cannot be written; empty if it can."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A ledger with a new id."""

    ledger_id: str
    requests: int
    in_doubt: int
    newest_ms: int | None
    """When its newest row was updated, by the gateway's clock."""
    marker_fault: str


async def migrate_schema(url: str, role: str | None, timeout_s: float) -> Migrated:
    """Create or migrate the tables, and let a role use them; raise LedgerFault or LedgerUnavailable."""
    where = where_of(url)
    async with connected(url, where, timeout_s) as server, server.transaction():
        await server.execute(LOCK_SCHEMA)
        await inspect(server, where)
        before, after = await migrate(server)
        if role is not None:
            await _grant(server, role)
    return Migrated(where, before, after)


async def _grant(server: Server, role: str) -> None:
    quoted, schema = await server.value(ROLE, role), await server.value(SCHEMA)
    if quoted is None:
        raise LedgerFault("--grant must name a user of the database server")
    for grant in GRANTS:
        await server.execute(grant.format(role=quoted, schema=schema))


async def create_first(place: Place, random_bytes: RandomBytes, *, is_new: bool) -> Created | None:
    """Create a ledger in an empty database; return None if there is one.

    With `is_new` its key may have had another one. Raise LedgerFault or LedgerUnavailable.
    """
    async with connected(place.url, place.where, place.timeout_s) as server, server.transaction():
        await server.execute(LOCK_SCHEMA)
        if isinstance(await inspect(server, place.where), Found):
            return None
        if not is_new:
            refuse_another(place.marker, RESTORE)
        ledger_id = await create_ledger(server, place, random_bytes, needs_marker=False)
    fault = place.marker.register(ledger_id, Entry(0, place.where))
    return Created(ledger_id, place.mark().key_id, fault)


async def accept(place: Place, random_bytes: RandomBytes) -> Accepted:
    """Give the ledger in a restored database a new id, so that its state before is not taken for it."""
    async with connected(place.url, place.where, place.timeout_s) as server, server.transaction():
        await server.execute(LOCK_SCHEMA)
        found = await inspect(server, place.where)
        if not isinstance(found, Found):
            raise LedgerFault(f"there is no ledger {place.where}: the database is empty")
        place.mark().must_fit(place.where, found.key_id, found.key_check)
        await migrate(server)
        ledger_id = random_bytes(16).hex()
        await server.fetch(RESTORED, ledger_id, place.marker.ids_at(place.where))
        (meta,) = await server.fetch(META)
        (summary,) = await server.fetch(SUMMARY)
    entry = Entry(meta["token"], place.where)
    fault = place.marker.register(ledger_id, entry, replaces=found.ledger_id)
    return Accepted(ledger_id, summary["requests"], summary["in_doubt"], summary["newest_ms"], fault)
