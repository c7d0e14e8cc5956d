"""Connections to a PostgreSQL database that may be gone, frozen or replaced at any time.

An operation ends within its time limit, whatever the server does. A connection is used again only after the
server has completed its operation; otherwise it is closed without a word to the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol

import asyncpg

from ..errors import LedgerBusy, LedgerFault, LedgerUnavailable
from .connection import Connect, connect, connect_or_explain
from .statements import ALIVE, CHANNEL
from .url import UNPREPARED, prepares_statements

IDLE_MAX_S: Final = 240.0
"""How long a connection may have been unused; many firewalls and NATs forget it after 5 minutes."""
LISTEN_AGAIN_S: Final = 1.0
"""The wait before a lost connection for notifications is made again."""
ALIVE_EVERY_S: Final = 5.0
"""How often that connection is checked: a server that is gone sends nothing."""
_HARMLESS: Final = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.DataError)
"""Errors after which a connection can be used again; others may be of a server that is not the primary."""
_FAILURES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_NOT_ALLOWED: Final = (
    "this user may not create or use the ledger's tables: run, as a user who may create them: "
    "alipayhk-gateway ledger migrate --grant USER"
)
_REFUSED: Final[dict[type[BaseException], str]] = {
    asyncpg.InvalidPasswordError: "the server refuses this user or password",
    asyncpg.InvalidAuthorizationSpecificationError: "the server refuses this user, or this way to connect",
    asyncpg.InvalidCatalogNameError: "the server has no such database",
    asyncpg.InsufficientPrivilegeError: _NOT_ALLOWED,
    asyncpg.InvalidSchemaNameError: _NOT_ALLOWED,
}
_REFUSALS: Final = tuple(_REFUSED)
_POOLED: Final = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""Errors of prepared statements that a pooler has made, or executes, in another session."""


class Calls(Protocol):
    """Runs statements, each in a transaction of its own; raises LedgerUnavailable."""

    async def fetch(self, statement: str, *parameters: object) -> Sequence[Any]:
        """Return the rows of a statement."""

    async def value(self, statement: str, *parameters: object) -> Any:
        """Return the first column of the only row of a statement."""

    def listen(self, heard: Callable[[str | None], None]) -> None:
        """Call `heard` with the text of each notification, and with None when some may have been lost."""

    async def close(self) -> None:
        """Close the connections."""


class Database:
    """Connections for operations, and one connection for notifications.

    The driver's own pool costs as much as the operation itself, and resets a session that nothing changes.
    """

    def __init__(self, url: str, *, pool_max: int, timeout_s: float, connect: Connect = connect) -> None:
        self._url = url
        self._connect = connect
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(pool_max)
        self._idle: list[tuple[float, asyncpg.Connection]] = []
        """Connections, and when they were used last; the last one first."""
        self._connecting: set[asyncio.Task[asyncpg.Connection]] = set()
        self._listening: asyncio.Task[None] | None = None

    async def fetch(self, statement: str, *parameters: object) -> Sequence[Any]:
        """Return the rows of a statement."""
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._take()
                try:
                    return await connection.fetch(statement, *parameters)
                except _HARMLESS:
                    raise
                except BaseException:
                    connection.terminate()
                    raise
                finally:
                    self._give_back(connection)
        except _FAILURES as error:
            failure = LedgerBusy if isinstance(error, asyncpg.LockNotAvailableError) else LedgerUnavailable
            raise failure(f"the ledger's database cannot be used: {name_of(error)}") from None

    async def value(self, statement: str, *parameters: object) -> Any:
        """Return the first column of the only row of a statement."""
        rows = await self.fetch(statement, *parameters)
        return rows[0][0] if rows else None

    def listen(self, heard: Callable[[str | None], None]) -> None:
        """Call `heard` with the text of each notification, and with None when some may have been lost."""
        if self._listening is None and prepares_statements(self._url):
            self._listening = asyncio.get_running_loop().create_task(self._listen(heard))

    async def close(self) -> None:
        """Close the connections; the server gets LEDGER_TIMEOUT_S to answer."""
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError):
                await self._listening
        for connecting in self._connecting:
            connecting.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        idle, self._idle = self._idle, []
        await asyncio.gather(*(self._close(connection) for _, connection in idle))

    async def _close(self, connection: asyncpg.Connection) -> None:
        with suppress(*_FAILURES):
            await connection.close(timeout=self._timeout_s)

    async def _take(self) -> asyncpg.Connection:
        """Return a connection that is free, or make one.

        Where many operations wait, each has little time left at its turn. So it waits for half of the time
        limit only, and a connection that is made too late is for the next one. Otherwise none would be in
        time, and each would close a connection that works.
        """
        async with asyncio.timeout(self._timeout_s / 2):
            await self._free.acquire()
        if (connection := self._kept()) is not None:
            return connection
        connecting = asyncio.create_task(self._connect(self._url, self._timeout_s))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(self._give_late)
            raise
        except BaseException:
            self._free.release()
            raise

    def _give_late(self, connecting: asyncio.Task[asyncpg.Connection]) -> None:
        if connecting.cancelled() or connecting.exception():
            self._free.release()
        else:
            self._give_back(connecting.result())

    def _give_back(self, connection: asyncpg.Connection) -> None:
        self._idle.append((time.monotonic(), connection))
        self._free.release()

    def _kept(self) -> asyncpg.Connection | None:
        """Return a connection that was used lately: a firewall may have forgotten the others."""
        while self._idle:
            used_s, connection = self._idle.pop()
            if not connection.is_closed() and time.monotonic() - used_s < IDLE_MAX_S:
                return connection
            connection.terminate()
        return None

    async def _listen(self, heard: Callable[[str | None], None]) -> None:
        """Keep a connection that listens; call `heard` with None after each new one."""
        while True:
            with suppress(*_FAILURES):
                connection = await connect(self._url, self._timeout_s)
                is_lost = asyncio.Event()
                connection.add_termination_listener(lambda _, is_lost=is_lost: is_lost.set())
                try:
                    await connection.add_listener(CHANNEL, lambda *said: heard(said[3]))
                    heard(None)
                    while not is_lost.is_set():
                        # Not wait_for: before Python 3.12 it can lose the cancellation of `close`.
                        with suppress(TimeoutError):
                            async with asyncio.timeout(ALIVE_EVERY_S):
                                await is_lost.wait()
                        await connection.execute(ALIVE)
                finally:
                    connection.terminate()
            await asyncio.sleep(LISTEN_AGAIN_S)


class Server:
    """One connection, for the opening of a ledger and for commands."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    def transaction(self) -> Any:
        """Return a context that is a transaction."""
        return self._connection.transaction()

    async def execute(self, statements: str) -> None:
        """Run statements without parameters."""
        await self._connection.execute(statements)

    async def fetch(self, statement: str, *parameters: object) -> Sequence[Any]:
        """Return the rows of a statement."""
        return await self._connection.fetch(statement, *parameters)

    async def value(self, statement: str, *parameters: object) -> Any:
        """Return the first column of the first row of a statement."""
        return await self._connection.fetchval(statement, *parameters)


@asynccontextmanager
async def connected(url: str, where: str, timeout_s: float) -> AsyncIterator[Server]:
    """Connect to a ledger's database; raise LedgerFault if an operator must act, else LedgerUnavailable."""
    connection = None
    try:
        connection = await connect_or_explain(url, where, timeout_s)
        yield Server(connection)
    except _REFUSALS as error:
        raise LedgerFault(f"the ledger {where} cannot be used: {_REFUSED[type(error)]}") from None
    except _FAILURES as error:
        raise LedgerUnavailable(f"the ledger {where} cannot be reached: {name_of(error)}") from None
    finally:
        if connection is not None:
            connection.terminate()


def name_of(error: BaseException) -> str:
    """Return what an error is, without the text of the server or of a library."""
    state = getattr(error, "sqlstate", None)
    name = f"{type(error).__name__} ({state})" if state else type(error).__name__
    return (
        f"{name}: behind PgBouncer, LEDGER_URL needs {UNPREPARED}" if isinstance(error, _POOLED) else name
    )
