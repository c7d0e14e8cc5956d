"""From a LEDGER_URL that names a PostgreSQL database to an open ledger, or a sentence that says why not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from .. import LedgerFault
from ..identity import Absence, Found, KeyMark, begin_marker, refusal_to_make, refusal_to_open
from ..marker import Entry, Marker, MarkerKeeper
from ..vault import RandomBytes, Vault, read_key_file
from .connection import connect_again
from .database import Database, Server, connected
from .ledger import PostgresLedger
from .statements import (
    CREATE_LEDGER,
    HAS_SCHEMA,
    ISOLATION,
    LOCK_SCHEMA,
    LOST_TABLES,
    META,
    MIGRATIONS,
    MUST_BE_ALLOWED_TO_CREATE,
    SET_VERSION,
    TABLES,
    VERSION,
)
from .url import where_of

RESTORE: Final = "pg_restore, and then: alipayhk-gateway ledger restore"
OPENING_TIMEOUT_S: Final = 10.0
"""The least time for each step of the opening: another gateway may be creating or migrating the tables."""
HOLDER_BYTES: Final = 8
"""The length of the id by which the database knows a process that waits."""
FAULT_TIMEOUT_S: Final = 2.0
"""How long `config check` waits for the database."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """A database, and the key of its ledger."""

    url: str = field(repr=False)  # it contains the password
    key_file: Path
    timeout_s: float

    @property
    def where(self) -> str:
        """Return the URL without user, password and options."""
        return where_of(self.url)

    @property
    def marker(self) -> Marker:
        """Return the key's marker file."""
        return Marker(self.key_file)

    def mark(self) -> KeyMark:
        """Return the values that a database stores to recognize this key; raise LedgerFault."""
        vault = Vault(read_key_file(self.key_file), random_bytes=bytes)
        return KeyMark(vault.key_id, vault.key_check)

    async def examined(self, server: Server) -> Absence | Found:
        """Return what is in the database if it may be opened or created; raise LedgerFault if not."""
        entries = self.marker.read()
        found = await inspect(server, self.where)
        if isinstance(found, Found):
            self.mark().must_fit(self.where, found.key_id, found.key_check)
            refusal = refusal_to_open(found, self.where, "", self.marker, entries)
        else:
            refusal = refusal_to_make(
                found,
                self.where,
                self.marker,
                entries,
                makes_key=False,
                key_is_configured=True,
                restore=RESTORE,
            )
        if refusal:
            raise LedgerFault(refusal)
        return found


def open_postgres(
    url: str,
    key_file: Path | None,
    /,
    *,
    random_bytes: RandomBytes,
    create: bool,
    report: Callable[[str], None],
    on_create: Callable[[], None],
    pool_max: int,
    timeout_s: float,
) -> tuple[PostgresLedger, Vault]:
    """Open a ledger, as `open_ledger` describes it."""
    place = place_of(url, key_file, max(timeout_s, OPENING_TIMEOUT_S))
    vault = Vault(read_key_file(place.key_file), random_bytes=random_bytes)
    found, is_new = wait_for(_opened(place, random_bytes, create=create))
    if is_new:
        on_create()
    entry = Entry(found.token, place.where)
    keeper = MarkerKeeper(place.marker, found.ledger_id or "", entry, report, found.former_ids)
    connect = partial(connect_again, recognizes=keeper.recognizes)
    database = Database(url, pool_max=pool_max, timeout_s=timeout_s, connect=connect)
    holder = random_bytes(HOLDER_BYTES)
    ledger = PostgresLedger(database, vault.key_id, random_bytes=random_bytes, holder=holder, keeper=keeper)
    return ledger, vault


def fault_of(url: str, key_file: Path | None) -> str | None:
    """Return why `open_postgres` would refuse a ledger, or None; write nothing. Raise LedgerUnavailable."""
    try:
        place = place_of(url, key_file, FAULT_TIMEOUT_S)
        place.mark()
        wait_for(_faultless(place))
    except LedgerFault as fault:
        return str(fault)
    return None


def place_of(url: str, key_file: Path | None, timeout_s: float) -> Place:
    """Return the place of a ledger; raise LedgerFault without a key file."""
    if key_file is None:
        raise LedgerFault("LEDGER_KEY_FILE is missing: all gateways that share a ledger need the same key")
    return Place(url, key_file, timeout_s)


async def _faultless(place: Place) -> None:
    async with connected(place.url, place.where, place.timeout_s) as server:
        if isinstance(await place.examined(server), Absence):
            await server.execute(MUST_BE_ALLOWED_TO_CREATE)


async def _opened(place: Place, random_bytes: RandomBytes, *, create: bool) -> tuple[Found, bool]:
    """Return what is in the database, and whether it was created now."""
    async with connected(place.url, place.where, place.timeout_s) as server, server.transaction():
        await server.execute(LOCK_SCHEMA)
        found = await place.examined(server)
        is_new = isinstance(found, Absence)
        if not is_new:
            await migrate(server)
        elif not create:
            raise LedgerFault(f"there is no ledger {place.where}: the database is empty")
        else:
            await create_ledger(server, place, random_bytes, needs_marker=True)
            found = await inspect(server, place.where)
    return cast("Found", found), is_new


async def inspect(server: Server, where: str) -> Absence | Found:
    """Return what a database contains about its ledger; raise LedgerFault if it must not be used."""
    isolation = await server.value(ISOLATION)
    if isolation != "read committed":
        raise LedgerFault(
            f"the ledger {where} cannot be used: its transactions are {isolation}: set "
            "default_transaction_isolation to 'read committed' for this user in this database"
        )
    if not await server.value(HAS_SCHEMA):
        return Absence.EMPTY_DATABASE
    version = await server.value(VERSION)
    if version > len(MIGRATIONS):
        raise LedgerFault(
            f"the schema of the ledger {where} is version {version}, newer than this gateway's "
            f"{len(MIGRATIONS)}: run the version of the gateway that wrote it"
        )
    if lost := await server.fetch(LOST_TABLES, TABLES) if version == len(MIGRATIONS) else ():
        names = ", ".join(name for (name,) in lost)
        raise LedgerFault(f"the ledger {where} has lost its tables {names}: put a backup back: {RESTORE}")
    rows = await server.fetch(META)
    if not rows:
        return Absence.EMPTY_DATABASE
    (meta,) = rows
    return Found(
        meta["key_id"],
        meta["key_check"],
        meta["ledger_id"],
        meta["token"],
        is_whole=True,
        former_ids=tuple(meta["former_ids"]),
    )


async def migrate(server: Server) -> tuple[int, int]:
    """Bring the schema to this gateway's version in a transaction; return the versions before and after."""
    before = await server.value(VERSION) if await server.value(HAS_SCHEMA) else 0
    for migration in MIGRATIONS[before:]:
        await server.execute(migration.read_text())
    if before < len(MIGRATIONS):
        await server.value(SET_VERSION, len(MIGRATIONS))
    return before, len(MIGRATIONS)


async def create_ledger(
    server: Server, place: Place, random_bytes: RandomBytes, *, needs_marker: bool
) -> str:
    """Create the ledger in an empty database, in a transaction; return its id.

    A crash leaves a marker that lists no ledger, and the next start creates the ledger.
    """
    mark, former_ids = place.mark(), place.marker.ids_at(place.where)
    begin_marker(
        place.marker, Absence.EMPTY_DATABASE, place.where, needs_marker=needs_marker, restore=RESTORE
    )
    await migrate(server)
    ledger_id = random_bytes(16).hex()
    await server.fetch(CREATE_LEDGER, ledger_id, mark.key_id, mark.key_check, former_ids)
    return ledger_id


def wait_for(operation: Coroutine[Any, Any, T]) -> T:
    """Run an operation in an event loop of its own, in another thread: this one may have a loop already."""
    with ThreadPoolExecutor(1, "ledger opening") as thread:
        return thread.submit(asyncio.run, operation).result()
