"""A PostgreSQL server in virtual time, and the connections that processes have to it.

The gateway's own code for connections runs (`service.ledger.postgres.database`); `connecting` replaces the
function of asyncpg that it starts with. A statement that is sent arrives later, is executed at one
instant by `Session`, and is answered later. In between the client may give up, the process may be killed,
the network may be cut, and the server may be frozen, crash, or fail over to its standby.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import asyncpg
import pytest

from service.ledger import Claim, Key
from service.ledger.postgres import statements

from .postgres_session import Done, Session
from .store import Fault
from .timeline import STARTED_S, Process, Timeline

LATE_S: Final = 0.6
"""How long a crash can undo a commit that did not wait: 3 * wal_writer_delay."""
JUMP_MAX: Final = 32
"""How many numbers of a sequence a crash can lose: SEQ_LOG_VALS of PostgreSQL's sequence.c."""
HOSTS: Final = ("one", "other")
URL: Final = f"postgresql://{','.join(HOSTS)}/ledger"
TRIP_S: Final = (0.0003, 0.001, 0.002)
"""How long a message takes in one direction, in seconds."""
LATE_NOTICE_S: Final = (0.0, 0.05, 0.3)
"""How late a notification is where they are also lost."""
WITHDRAWN_SHARE: Final = 0.3
"""How often a statement is not executed whose client gives up before it is: asyncpg asks for that."""
NOTHING: Final = ("",)
_OPERATIONS: Final = {
    statements.RECORD: "record",
    statements.UNDO: "undo",
    statements.TAKE_BACK: "undo",
    statements.QUEUE: "queue",
    statements.LEAVE: "leave",
}
ASKING: Final[ContextVar[Claim | None]] = ContextVar("asking", default=None)
"""The claim that a statement is about."""


@dataclass(eq=False)
class Statement:
    """A statement that a connection has sent."""

    connection: Connection
    text: str
    parameters: tuple[Any, ...]
    answer: asyncio.Future[Any]
    fault: Fault
    asked: Claim | None
    waits_for_lock: bool
    """Whether it hangs in its transaction, not before it."""
    sent_s: float
    began_ms: int = 0
    is_void: bool = False
    """Whether it is never executed, because its connection broke before."""
    is_given_up: bool = False

    @property
    def operation(self) -> str:
        """The operation of the ledger; empty for a statement that has no faults of its own."""
        if self.text == statements.CLAIM:
            return "claim" if self.parameters[0] else "look"
        if self.text == statements.EXTEND:
            return "renew" if self.parameters[-1] else "extend"
        return _OPERATIONS.get(self.text, "")

    @property
    def ids(self) -> str:
        """The ids of the requests that an operation is about."""
        if self.text == statements.QUEUE:
            return " ".join(self.parameters[0])
        return self.key.request_id

    @property
    def key(self) -> Key:
        """The key of the request that an operation is about."""
        at = 1 if self.text == statements.CLAIM else 0
        request_id, api, client_id = self.parameters[at : at + 3]
        return Key(client_id, api, request_id)


@dataclass(frozen=True, slots=True)
class Late:
    """A commit that did not wait until it was durable."""

    at_s: float
    savepoint: int
    before: Any
    """What `Watcher.state` returned before it."""


class Watcher(Protocol):
    """Gets to know what the server does, before anybody else."""

    def state(self) -> Any:
        """Return the present state."""

    def done(self, statement: Statement, done: Done) -> bool:
        """Note what a statement did; return whether the commit had something to make durable."""

    def set_clock(self, step_s: float) -> None:
        """Set the server's clock ahead or back."""

    def could_not(self, statement: Statement, error: asyncpg.PostgresError) -> None:
        """Note that the real server could not execute a statement."""

    def crashed(self, before: Any, last_token: int) -> None:
        """Note a crash: the state is an earlier one again, or the present one if it is None."""


class Connection:
    """A connection of a process, as asyncpg's class."""

    def __init__(self, server: Server, process: Process, timeout_s: float) -> None:
        self.process = process
        self.is_open = True
        self.is_deaf = False
        """Whether nothing arrives any more, and neither side knows."""
        self.heard: Callable[..., None] | None = None
        self.lost: Callable[[Connection], None] | None = None
        self.open: dict[Statement, None] = {}
        """The statements without an answer."""
        self._server, self._timeout_s = server, timeout_s

    async def fetch(self, text: str, *parameters: Any) -> Sequence[Any]:
        """Return the rows of a statement."""
        return (await self._server.ask(self, text, parameters)).rows

    async def execute(self, text: str) -> None:
        """Run a statement that does nothing."""
        async with asyncio.timeout(self._timeout_s):
            await self._server.ask(self, text, NOTHING)

    async def add_listener(self, _: str, heard: Callable[..., None]) -> None:
        """Listen."""
        await self.execute("LISTEN")
        self.heard = heard

    def add_termination_listener(self, lost: Callable[[Connection], None]) -> None:
        """Call `lost` when the connection is closed."""
        self.lost = lost

    def is_closed(self) -> bool:
        """Return whether this side knows that it is closed."""
        return not self.is_open

    async def close(self, **_: float) -> None:
        """Close it."""
        self.terminate()

    def terminate(self) -> None:
        """Close it."""
        if self.is_open and self.lost is not None:
            self.lost(self)
        self.is_open = False
        self._server.connections.pop(self, None)


@dataclass
class Server:
    """The server, as seen from outside."""

    timeline: Timeline
    session: Session
    dice: Random
    fault_of: Callable[[str], Fault]
    """Returns the fault of the next operation."""
    watcher: Watcher
    deaf_share: float = 0.0
    """How often a notification is lost."""
    step_s: float = 0.0
    """How far its clock was set ahead."""
    primary: str = HOSTS[0]
    """The host that can be written; the other one is its standby."""
    connections: dict[Connection, None] = field(default_factory=dict)
    frozen_until_s: float = 0.0
    down_until_s: float = 0.0
    cut_until_s: dict[str, float] = field(default_factory=dict)
    """Until when the network between a process and the server is cut, by the name of the process."""
    _late: list[Late] = field(default_factory=list)
    _pending: dict[Statement, None] = field(default_factory=dict)
    """The statements that are not executed yet, also those of connections that are closed."""

    def clock_ms(self) -> int:
        """Return the server's clock, in milliseconds since 1970."""
        return int((STARTED_S + self.timeline.now_s + self.step_s) * 1000)

    @property
    def disturbed_until_s(self) -> float:
        """Until when it cannot be used by all."""
        return max(self.frozen_until_s, self.down_until_s, *self.cut_until_s.values(), 0.0)

    def is_unreachable(self, process: Process) -> bool:
        """Return whether a process cannot use it now."""
        return self.timeline.now_s < max(self._unreachable_until_s(process), self.down_until_s)

    # -- what processes do

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """Let asyncpg connect to this server."""

        async def connect(url: str, *, timeout: float, **__: Any) -> Connection:  # noqa: ASYNC109  (asyncpg's)
            assert self.timeline.current is not None
            async with asyncio.timeout(timeout):
                if urlsplit(url).hostname == self.primary:
                    return await self.connect(self.timeline.current, timeout)
                await asyncio.sleep(self.dice.choice((self._trip_s(), timeout)))
                raise asyncpg.TargetServerAttributeNotMatched

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncpg, "connect", connect)
            yield

    async def connect(self, process: Process, timeout_s: float) -> Connection:
        """Return a new connection; raise OSError if the server is down."""
        for _ in range(3):  # TCP and the two round trips of the authentication
            await asyncio.sleep(self._trip_s())
            await asyncio.sleep(max(self._unreachable_until_s(process) - self.timeline.now_s, 0.0))
            if self.timeline.now_s < self.down_until_s:
                raise ConnectionRefusedError
        connection = Connection(self, process, timeout_s)
        self.connections[connection] = None
        return connection

    async def ask(self, connection: Connection, text: str, parameters: tuple[Any, ...]) -> Done:
        """Send a statement, and wait for its answer."""
        if not connection.is_open or connection.open:
            raise asyncpg.InterfaceError("connection is closed, or another operation is in progress")
        answer = asyncio.get_running_loop().create_future()
        waits, sent_s = self.dice.random() < 0.5, self.timeline.now_s
        statement = Statement(connection, text, parameters, answer, Fault(), ASKING.get(), waits, sent_s)
        if statement.operation:
            statement.fault = self.fault_of(statement.operation)
        connection.open[statement] = self._pending[statement] = None
        before_s = 0.0 if statement.waits_for_lock else statement.fault.before_s
        self.timeline.after(self._trip_s() + before_s, partial(self._arrive, statement))
        try:
            return await answer  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            statement.is_given_up = True
            statement.is_void |= self.dice.random() < WITHDRAWN_SHARE
            raise

    # -- what happens to it

    def drop(self, process: Process) -> None:
        """Close the connections of a process that was killed; what it has sent is executed all the same."""
        for connection in self._of(process.name):
            connection.terminate()

    def disconnect(self, name: str, *, listening: bool) -> None:
        """Break the connections of a process, or only the one that listens, which it may not notice."""
        for connection in self._of(name):
            if not listening:
                self._break(connection)
            elif connection.heard is not None:
                connection.is_deaf = True

    def _of(self, name: str) -> list[Connection]:
        return [connection for connection in self.connections if connection.process.name == name]

    def crash(self, down_s: float) -> None:
        """Lose what was not durable, and be down; the standby may take over."""
        now_s = self.timeline.now_s
        self.down_until_s, self.frozen_until_s = now_s + down_s, 0.0
        self.primary = self.dice.choice(HOSTS)
        for connection in list(self.connections):
            self._break(connection)
        for statement in self._pending:
            statement.is_void = True
        self._pending.clear()
        recent = [late for late in self._late if late.at_s > now_s - LATE_S]
        lost = self.dice.choice((*recent, None))
        jumps = [self.dice.choice((0, self.dice.randrange(JUMP_MAX))) for _ in range(2)]
        token = self.session.crash(lost.savepoint if lost else None, jumps)
        self._late.clear()
        self.watcher.crashed(lost.before if lost else None, token)

    def _break(self, connection: Connection) -> None:
        connection.terminate()
        for statement in list(connection.open):
            self._answer(statement, asyncpg.ConnectionDoesNotExistError("connection was closed"))

    # -- a statement

    def _arrive(self, statement: Statement) -> None:
        if statement.is_void or self._is_delayed(statement, self._arrive):
            return
        statement.began_ms = self.clock_ms()
        if statement.waits_for_lock and statement.fault.before_s:
            self.timeline.after(statement.fault.before_s, partial(self._execute, statement))
        else:
            self._execute(statement)

    def _execute(self, statement: Statement) -> None:
        if statement.is_void or self._is_delayed(statement, self._execute):
            return
        self._pending.pop(statement, None)
        fault = statement.fault
        if fault.kind == "gone":
            self._break(statement.connection)
        elif fault.kind == "busy":
            self._later(statement, asyncpg.LockNotAvailableError("canceling statement due to lock timeout"))
        elif fault.kind == "full" and statement.operation != "look":
            self._later(statement, asyncpg.DiskFullError("could not extend file"))
        else:
            result = self._result_of(statement)
            if fault.kind == "silent":
                self._break(statement.connection)
            else:
                self._later(statement, result)

    def _result_of(self, statement: Statement) -> Done | asyncpg.PostgresError:
        if statement.parameters is NOTHING:
            return Done(())
        before = self.watcher.state()
        try:
            done = self.session.execute(
                statement.text, statement.parameters, self.clock_ms(), statement.began_ms
            )
        except asyncpg.PostgresError as error:
            self.watcher.could_not(statement, error)
            return error
        if self.watcher.done(statement, done):
            if done.is_durable:
                self._late.clear()
                self.session.keep()
            else:
                self._late.append(Late(self.timeline.now_s, self.session.savepoint, before))
        for text in done.said:
            self._notify(text)
        return done

    def _later(self, statement: Statement, result: Done | Exception) -> None:
        self.timeline.after(
            self._trip_s() + statement.fault.after_s, partial(self._answer, statement, result)
        )

    def _answer(self, statement: Statement, result: Done | Exception) -> None:
        connection, process = statement.connection, statement.connection.process
        if isinstance(result, Done) and self._is_delayed(statement, partial(self._answer, result=result)):
            return
        if connection.open.pop(statement, NOTHING) is NOTHING or not process.alive:
            return

        def answer() -> None:
            if statement.answer.done():
                return
            if isinstance(result, Exception):
                statement.answer.set_exception(result)
            else:
                statement.answer.set_result(result)

        process.loop.call_soon(answer)

    def _is_delayed(self, statement: Statement, step: Callable[[Statement], None]) -> bool:
        """Return whether a step cannot be made now: it is made later, or never."""
        connection = statement.connection
        if connection.is_deaf:
            return True
        now_s, until_s = self.timeline.now_s, self._unreachable_until_s(connection.process)
        if until_s <= now_s:
            return False
        is_frozen = now_s < self.frozen_until_s
        if is_frozen or not statement.is_given_up:  # else the client sends nothing again
            self.timeline.at(until_s + self._trip_s(), partial(step, statement))
        return True

    def _notify(self, text: str) -> None:
        for connection in list(self.connections):
            if connection.heard is not None and self.dice.random() >= self.deaf_share:
                late_s = self.dice.choice(LATE_NOTICE_S) if self.deaf_share else 0.0
                self.timeline.after(self._trip_s() + late_s, partial(self._tell, connection, text))

    def _tell(self, connection: Connection, text: str) -> None:
        process = connection.process
        cut = self.timeline.now_s < self._unreachable_until_s(process) or connection.is_deaf
        if connection.is_open and connection.heard is not None and process.alive and not cut:
            process.loop.call_soon(connection.heard, connection, 0, "", text)

    def _unreachable_until_s(self, process: Process) -> float:
        return max(self.frozen_until_s, self.cut_until_s.get(process.name, 0.0))

    def _trip_s(self) -> float:
        return self.dice.choice(TRIP_S)
