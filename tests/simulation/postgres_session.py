"""A real PostgreSQL database that executes the statements of a simulated one, each at an instant.

A run is one transaction, which is rolled back at its end: nothing is synced or cleaned up. Each statement
of the run is a savepoint of that transaction, so that a crash can undo the last ones. So only one statement
runs at a time; tests/ledger/test_postgres_races.py has the races between two.

`alipayhk_clock_ms` returns the virtual time, and `pg_notify` keeps what it is given.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import asyncpg

from service.ledger.postgres.statements import (
    CLAIM,
    DROP,
    EXTEND,
    LAST_CHANGE,
    LEAVE,
    MARK,
    MIGRATIONS,
    QUEUE,
    RECORD,
    RESOLVE,
    TAKE_BACK,
    UNDO,
)
from tests.postgres.server import Postgres

T = TypeVar("T")
CLOCK: Final = "sim.clock_ms"
"""The database's clock when the statement is executed."""
BEGAN: Final = "sim.began_ms"
"""The same when its transaction began: it may have waited for a lock."""
_KEYS: Final = {
    CLAIM: "$2, $3, $4",
    EXTEND: "$1, $2, $3",
    RECORD: "$1, $2, $3",
    UNDO: "$1, $2, $3",
    TAKE_BACK: "$1, $2, $3",
    RESOLVE: "$1, $2, $3",
    QUEUE: "'', '', ''",
    LEAVE: "$1, $2, $3",
    MARK: "'', '', ''",
    DROP: "'', '', ''",
    LAST_CHANGE: "'', '', ''",
}
"""The statements that may write, with the key of the row that they are about."""
_SIMULATED: Final = f"""
    CREATE SCHEMA sim;
    CREATE FUNCTION sim.pg_notify(channel text, said text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM set_config('sim.said', concat_ws(' ', nullif(current_setting('sim.said'), ''), said), true);
    END $$;
    CREATE OR REPLACE FUNCTION alipayhk_clock_ms() RETURNS bigint LANGUAGE sql VOLATILE AS
        'SELECT current_setting(''{CLOCK}'')::bigint';
    CREATE TYPE sim.after AS (
        synchronous_commit text, said text, wrote alipayhk_request, waits_until_ms bigint);
    CREATE FUNCTION sim.after(text, text, text) RETURNS sim.after LANGUAGE plpgsql VOLATILE AS $$
    DECLARE
        this sim.after;
    BEGIN
        this.synchronous_commit := current_setting('synchronous_commit');
        this.said := current_setting('sim.said');
        SELECT request INTO this.wrote FROM alipayhk_request AS request
            WHERE request_id = $1 AND api = $2 AND client_id = $3;
        SELECT max(until_ms) INTO this.waits_until_ms FROM alipayhk_waiting
            WHERE request_id = $1 AND api = $2 AND client_id = $3;
        RETURN this;
    END $$;
"""
_SEQUENCES: Final = ("alipayhk_token", "alipayhk_change")
_BEGIN: Final = "; ".join(
    ("ROLLBACK", "BEGIN", *(f"SELECT setval('{name}', 1, false)" for name in _SEQUENCES))
)
_ADDED: Final = (
    "SELECT proname FROM pg_proc WHERE proname LIKE 'alipayhk%' GROUP BY proname HAVING count(*) > 1"
)
_EMPTY: Final = "TRUNCATE alipayhk_request, alipayhk_resolution, alipayhk_waiting, alipayhk_clock_mark"
ROWS: Final = "SELECT * FROM alipayhk_request"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is."""

    directory: str
    """The directory of its Unix socket."""
    port: int


@contextmanager
def server() -> Iterator[Address]:
    """Start a server that syncs nothing, and that does nothing by itself."""
    with Postgres.start(fsync=False, autovacuum=False) as postgres:
        yield Address(str(postgres.home.path), postgres.port)


@dataclass(frozen=True, slots=True)
class Done:
    """What a statement did."""

    rows: Sequence[Any]
    is_durable: bool = False
    """Whether its commit waited until it was durable."""
    said: tuple[str, ...] = ()
    """The texts of its notifications."""
    wrote: Any = None
    """The row with its key, after it."""
    waits_until_ms: int | None = None
    """Until when the last entry of its key in the table of waiting requests counts."""


class Session:
    """A connection to the database of this process on a server; nothing else uses that database."""

    def __init__(self, server: Address) -> None:
        """Connect."""
        self._loop = asyncio.new_event_loop()
        self._where: dict[str, Any] = {"host": server.directory, "port": server.port, "user": "postgres"}
        self._connection = self._run(self._connect(f"sim_{os.getpid()}"))
        self._savepoints, self._released = 0, ""
        self._wrapped: dict[str, str] = {}

    def close(self) -> None:
        """Close the connection."""
        self._run(self._connection.close())
        self._loop.close()

    def begin(self, default: str, edits: Sequence[str]) -> None:
        """Start a run, with changed functions; `default` is the synchronous_commit of a new transaction."""
        self._default, self._savepoints, self._released = default, 0, ""
        self._execute("; ".join((_BEGIN, *edits)))
        if edits and (added := self._run(self._connection.fetchval(_ADDED))):
            raise LookupError(
                f"{added} is added and not replaced: statements prepared before do not call it"
            )

    def end(self) -> None:
        """Undo everything that the run has done."""
        self._execute("ROLLBACK")

    def execute(self, statement: str, parameters: Sequence[object], clock_ms: int, began_ms: int) -> Done:
        """Execute a statement after a new savepoint; raise what asyncpg raises, and undo it then."""
        self._savepoints += 1
        settings = {
            CLOCK: clock_ms,
            BEGAN: began_ms,
            "sim.said": "",
            "synchronous_commit": self._default,
        }
        sets = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())
        before = f"{self._released}SAVEPOINT s{self._savepoints}; {sets}"
        self._released = ""
        try:
            rows = self._run(self._executed(before, self._wrap(statement), parameters))
        except asyncpg.PostgresError:
            self._execute(f"ROLLBACK TO s{self._savepoints}")
            raise
        if statement not in _KEYS:
            return Done(rows)
        after = rows[0]["after"]
        is_durable = after["synchronous_commit"] not in {"off", "local"}
        return Done(rows, is_durable, tuple(after["said"].split()), after["wrote"], after["waits_until_ms"])

    @property
    def savepoint(self) -> int:
        """The number of the savepoint before the last statement."""
        return self._savepoints

    def keep(self) -> None:
        """Make everything that was done up to now durable."""
        self._savepoints, self._released = 0, "RELEASE SAVEPOINT s1; "

    def crash(self, savepoint: int | None, jumps: Sequence[int]) -> int:
        """Undo everything since a savepoint, and make the rest durable; return the last token.

        Unlogged tables are empty after that, and each sequence may have lost some numbers.
        """
        if savepoint is not None:
            self._execute(f"ROLLBACK TO s{savepoint}")
        if self._savepoints:
            self.keep()
        pairs = zip(_SEQUENCES, jumps, strict=True)
        lost = (f"SELECT setval('{name}', nextval('{name}') + {jump})" for name, jump in pairs if jump)
        self._execute("; ".join(("DELETE FROM alipayhk_waiting", *lost)))
        token = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM alipayhk_token"
        return int(self._run(self._connection.fetchval(token)))

    def rows(self) -> Sequence[Any]:
        """Return all rows."""
        return cast("Sequence[Any]", self._run(self._connection.fetch(ROWS)))

    def _wrap(self, statement: str) -> str:
        """Return a statement that also returns what it did."""
        if statement in _KEYS and statement not in self._wrapped:
            after = f"sim.after({_KEYS[statement]}) AS after"
            self._wrapped[statement] = (
                f"WITH done AS MATERIALIZED ({statement}) SELECT done.*, {after} FROM done"
            )
        return self._wrapped.get(statement, statement)

    async def _connect(self, name: str) -> asyncpg.Connection:
        with suppress(asyncpg.InvalidCatalogNameError):
            return await self._emptied(name)
        server = await asyncpg.connect(**self._where, database="postgres")
        await server.execute(f"CREATE DATABASE {name}")
        await server.close()
        database = await asyncpg.connect(**self._where, database=name)
        for migration in MIGRATIONS:
            await database.execute(migration.read_text())
        await database.execute(_SIMULATED)
        # Edits replace the schema's functions, and these find `sim.pg_notify` before that of the system.
        await database.execute(f"ALTER DATABASE {name} SET search_path = public, sim, pg_catalog")
        await database.close()
        return await self._emptied(name)

    async def _emptied(self, name: str) -> asyncpg.Connection:
        """Connect, and remove what undone runs have left in the files."""
        connection: asyncpg.Connection = await asyncpg.connect(**self._where, database=name)
        await connection.execute(_EMPTY)
        return connection

    async def _executed(self, before: str, statement: str, parameters: Sequence[object]) -> Sequence[Any]:
        await self._connection.execute(before)
        return await self._connection.fetch(statement, *parameters)

    def _execute(self, statements: str) -> None:
        self._run(self._connection.execute(statements))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)
