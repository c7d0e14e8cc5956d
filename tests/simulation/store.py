"""The ledger's store: one of four kinds, with faults, and with a power loss.

- `shared`: a model of any store that several processes share. It has the rules of `MemoryLedger`, commits
  durably before it answers, and keeps what was durable at a power loss.
- `sqlite`: real `SqliteLedger`s on one real file, on a disk that loses what was not synced.
- `memory`, `off`: what LEDGER_URL=memory: and off are, one for each process.

`twin` checks each change of a row.

SQLite's writer is a thread. `LockStep` replaces its queue: the thread runs only while the event loop waits
for it, so that a run is always the same.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from service.ledger import (
    Answer,
    Claim,
    Ending,
    Granted,
    InDoubt,
    InProgress,
    Key,
    Ledger,
    LedgerUnavailable,
    LinkageBusy,
    Row,
    State,
)
from service.ledger.errors import LedgerBusy
from service.ledger.identity import KeyMark
from service.ledger.lease import LEASE_MAX_MS
from service.ledger.off import OffLedger
from service.ledger.sqlite import writer
from service.ledger.sqlite.file import LedgerFile
from service.ledger.sqlite.ledger import SqliteLedger

from .disk import Disk
from .timeline import STARTED_S, Process, Timeline
from .twin import UNFINISHED, TwinTables, WatchedMemory

T = TypeVar("T")
COMMIT_S: Final = 0.002
"""How long a commit takes, in seconds."""
MARK: Final = KeyMark("key", b"check")
LATE_S: Final = 1.0
"""A claim that takes longer may be in doubt for others, although nothing was sent."""
RETENTION_S: Final = 720 * 3600.0
SKEW_S: Final = 310.0
"""How wrong a clock may be that results are dropped by."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of one operation."""

    before_s: float = 0.0
    """How long it hangs before it takes effect, in seconds."""
    after_s: float = 0.0
    """How long it hangs after it took effect, in seconds."""
    kind: str = ""
    """`gone`: it fails. `busy`: another process holds the lock. `silent`: it takes effect and fails.
    `full`: it fails if it is a claim, as on a full disk with ballast."""


@dataclass(slots=True)
class Held:
    """A claim as the store granted it."""

    process: str
    token: int
    linkage: bytes | None
    until_ms: int
    """When the lease ends, by the clock that leases expire by."""
    until_boot_s: float
    """The latest moment at which it can end, in seconds since boot."""


class Store:
    """The store of one run."""

    def __init__(
        self, kind: str, timeline: Timeline, faults: Sequence[Fault], directory: Path, disk: Disk
    ) -> None:
        self.kind = kind
        self.timeline = timeline
        self.calm = False
        """Whether there are no more faults."""
        self.wall_s: Callable[[], float] = lambda: 0.0
        """The clock of the processes' host, in seconds since 1970."""
        self.note: Callable[..., None] = lambda *_: None
        self.disturbed = bool(faults)
        """Whether there were faults of the store, or of a process."""
        self.overtaken: Callable[[Claim], list[str]] = lambda _: []
        """Returns the older requests that wait for the linkage of a claim which is granted."""
        self.gone_until_s = 0.0
        self.unrecordable_until_s = 0.0
        """Until then outcomes cannot be written, and claims can."""
        self.answered: Callable[..., None] = lambda *_, **__: None
        """Called with what the answer to a claim or look-up says about earlier attempts."""
        self.broken: list[tuple[str, str]] = []
        """Invariants that were broken, each with what broke it."""
        self.unwritten: set[tuple[str, Key]] = set()
        """Requests with a result that a process could not record yet."""
        self.marked_token, self.marked_s = 0, float("inf")
        """The last token when results were first dropped, and when that was; see `Ledger.drop`."""
        self.failed: set[Key] = set()
        """Requests whose result could not be recorded at once."""
        self.unclear: set[Key] = set()
        """Requests whose claim was committed, and failed or came back late all the same."""
        self.held: dict[Key, Held] = {}
        self._faults = iter(faults)
        self._directory, self._disk = directory, disk
        self._shared, self._twin = (
            WatchedMemory(self.broken, lambda: round(self.wall_s() * 1000)) for _ in range(2)
        )
        self._durable = self.snapshot()
        self._queues: dict[Process, LockStep] = {}
        self._is_loaded = True
        """Whether the twin has the file's rows."""
        if kind == "sqlite":
            self._new_file()

    @property
    def last_token(self) -> int:
        """The last token that the shared store granted."""
        return self._shared._last_token

    @property
    def outlives_process(self) -> bool:
        """Whether it has what earlier processes recorded."""
        return self.kind in {"shared", "sqlite", "postgres"}

    @property
    def shows_rows(self) -> bool:
        """Whether it can say what is recorded of a request."""
        return self.kind in {"shared", "postgres"}

    def held_for(self, seconds: float) -> list[Key]:
        """Return the requests that are held for so long yet, if the store shows that."""
        return []

    def running(self) -> AbstractContextManager[None]:
        """Return what is needed while processes run."""
        return nullcontext()

    def end(self) -> None:
        """Check and remove what is left at the end of the run."""

    def lease_clock_ms(self) -> float:
        """Return the clock by which leases expire."""
        return self.wall_s() * 1000

    @property
    def was_set_ahead(self) -> bool:
        """Whether claims that may still be sent were granted before a clock of its own was set ahead."""
        return False

    disturbed_until_s = 0.0
    """Until when its own faults last after the world is calm."""

    def calm_down(self) -> None:
        """Set a clock of its own right."""

    def clock_steps(self, steps: int) -> int:
        """Return how often the clock was set by which leases expire; `steps` is that of the hosts."""
        return steps

    def check_lost_claims(self) -> None:
        """Check claims whose answers were lost, when the faults are over."""

    def open(self, process: Process, now_ms: Callable[[], int]) -> FaultyLedger:
        """Open it for a process that starts, with its clock in milliseconds."""
        if self.kind == "sqlite":
            with pytest.MonkeyPatch.context() as patch:
                queue = self._queues[process] = LockStep(process.loop)
                patch.setattr(writer, "SimpleQueue", lambda: queue)
                patch.setattr(writer, "Tables", partial(TwinTables, twin=self._twin))
                ledger = SqliteLedger(LedgerFile(self._path, MARK), clock_ms=now_ms)
                queue.writer = ledger._writer
            if not self._is_loaded:
                queue.writer._tables.load()
                self._is_loaded = True
            return FaultyLedger(self, process, ledger, self._twin)
        if self.kind == "off":
            return FaultyLedger(self, process, OffLedger(), None)
        memory = self._shared if self.kind == "shared" else WatchedMemory(self.broken, now_ms)
        return FaultyLedger(self, process, memory, memory)

    def is_claimed(self, key: Key) -> bool:
        """Return whether a row is SENDING; its process may not know yet that a result was committed."""
        row = (self._shared if self.kind == "shared" else self._twin)._rows.get(key)
        return row is not None and row.state is State.SENDING

    def has_unwritten(self, process: str) -> bool:
        """Return whether a process has results that it could not record."""
        return any(name == process for name, _ in self.unwritten)

    def forget(self, process: str) -> None:
        """Forget what a process that ended remembered."""
        self.unwritten = {(name, key) for name, key in self.unwritten if name != process}
        for held in self.held.values():
            held.process = "dead" if held.process == process else held.process

    def dropped(self, process: Process) -> None:
        """Release what a killed process had open."""
        if (queue := self._queues.pop(process, None)) is not None:
            queue.kill()

    def files_after_power_loss(self) -> dict[str, bytes]:
        """Return the files that a power loss would leave now; the processes still run."""
        return self._disk.after_power_loss(self.timeline.dice) if self.kind == "sqlite" else {}

    def lose_power(self, files: dict[str, bytes]) -> None:
        """Lose what was not durable; every process is dead by now."""
        # Claims, renewals and results that were not durable are lost: what is held is what the rows say.
        rows: dict[Key, Row] = self._durable["_rows"]
        self.held = {
            key: Held(
                "dead",
                row.token,
                row.linkage,
                row.lease_until_ms,
                self.timeline.now_s + LEASE_MAX_MS / 1000,
            )
            for key, row in rows.items()
            if row.state is State.SENDING
        }
        if self.kind == "shared":
            self._shared.__dict__.update(self._durable)
            self._shared.__dict__.update(self.snapshot())
        elif self.kind == "sqlite":
            for path in self._directory.iterdir():
                path.unlink()
            for name, content in files.items():
                Path(name).write_bytes(content)
            self._disk.start(self._directory)
            self._is_loaded = False

    def durable(self, key: Key) -> Row | None:
        """Return what a power loss now would leave of a request, if the kind of store shows that."""
        rows: dict[Key, Row] = self._durable["_rows"]
        return rows.get(key)

    def next_fault(self, operation: str) -> Fault:
        """Return the fault of the next operation."""
        fault, now_s = next(self._faults, Fault()), self.timeline.now_s
        if self.calm:
            return Fault()
        if now_s < self.gone_until_s:
            return Fault(kind="gone")
        if now_s < self.unrecordable_until_s and operation in {"record", "undo"}:
            return Fault(kind="busy" if fault.kind == "busy" else "gone")
        return fault

    @property
    def has_changed(self) -> bool:
        """Whether the shared store has changes that are not durable."""
        durable = self._durable
        return (self._shared._last_change, len(self._shared._rows)) != (
            durable["_last_change"],
            len(durable["_rows"]),
        )

    def snapshot(self) -> dict[str, Any]:
        """Return the state of the shared store, to be made durable."""
        state = dict(self._shared.__dict__)
        state["_rows"] = dict(self._shared._rows)
        linkages = {linkage: dict(keys) for linkage, keys in self._shared._by_linkage.items()}
        state["_by_linkage"] = defaultdict(dict, linkages)
        state["_marks"] = list(self._shared._marks)
        return state

    def sync(self, snapshot: dict[str, Any]) -> None:
        """Make a snapshot durable, unless a later one is."""
        if snapshot["_last_change"] >= self._durable["_last_change"]:
            self._durable = snapshot

    @property
    def _path(self) -> Path:
        return self._directory / "ledger.db"

    def _new_file(self) -> None:
        for path in self._directory.iterdir():
            path.unlink()
        shutil.copyfile(_template(self._directory.parent), self._path)
        self._disk.start(self._directory)


class LockStep:
    """The queue of SQLite's writer: its thread runs only inside `_pump`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.writer: Any = None
        self._loop = loop
        self._items: deque[Any] = deque()
        self._go, self._idle = threading.Semaphore(0), threading.Semaphore(0)
        self._started = self._killed = False

    def put(self, item: Any) -> None:
        """Add an item, and let the thread run when the commit is due; None ends the thread at once."""
        self._items.append(item)
        if item is None:
            self._pump()
        elif len(self._items) == 1:
            self._loop.call_later(COMMIT_S, self._pump)

    def get(self) -> Any:
        """Return the next item; the thread waits here for its turn."""
        if not self._items:
            self._idle.release()
            self._go.acquire()
        return None if self._killed else self._items.popleft()

    def empty(self) -> bool:
        """Return whether there is no item."""
        return not self._items

    def kill(self) -> None:
        """End the thread between two batches, without those that wait; it closes its connection."""
        self._killed = True
        self._go.release()
        self.writer._thread.join()

    def _pump(self) -> None:
        if not self._started:
            self._started = True
            self._idle.acquire()
        if self._items:
            last = self._items[-1] is None
            self._go.release()
            if not last:
                self._idle.acquire()


class FaultyLedger:
    """The ledger as one process sees it."""

    def __init__(
        self, store: Store, process: Process, ledger: Ledger, memory: WatchedMemory | None
    ) -> None:
        """Wrap a ledger; `memory` has the rows that it has."""
        self._store, self._process, self._ledger, self._memory = store, process, ledger, memory
        self.note: Callable[..., None] = lambda *_: None
        self._is_closed = False
        self._writing: list[Key] = []
        """The results that are being recorded."""
        self._tried: set[Key] = set()
        """The results that were recorded, or could not be, since the process has begun to stop."""

    @property
    def outlives_process(self) -> bool:
        """Return what the kind of store promises."""
        return self._store.outlives_process

    @property
    def log_bytes(self) -> int:
        """Return what the ledger says."""
        return self._ledger.log_bytes

    async def claim(self, claim: Claim, now_ms: int) -> Answer:
        """Claim."""

        async def work() -> Answer:
            answer = await self._ledger.claim(claim, now_ms)
            if isinstance(answer, Granted):
                self._hold(claim.key, answer.token, claim.lease_ms, claim.linkage, now_ms)
            return answer

        return self._answered(claim, await self._through("claim", claim.key, work))

    async def look(self, claim: Claim, now_ms: int) -> Answer:
        """Look up."""
        work = self._through("look", claim.key, lambda: self._ledger.look(claim, now_ms))
        return self._answered(claim, await work)

    async def queue(self, claim: Claim) -> None:
        """Queue."""
        await self._ledger.queue(claim)

    def leave(self, key: Key) -> None:
        """Leave."""
        self._ledger.leave(key)

    async def wait(self, answer: InProgress | LinkageBusy, timeout_s: float) -> None:
        """Wait."""
        await self._ledger.wait(answer, timeout_s)

    async def renew(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Renew."""
        return await self._through("renew", key, self._longer("renew", key, token, lease_ms, now_ms))

    async def extend(self, key: Key, token: int, lease_ms: int, now_ms: int) -> bool:
        """Extend."""
        row = None if self._memory is None else self._memory._rows.get(key)
        is_expired = row is not None and row.is_in_doubt(round(self._lease_now_ms(now_ms)))
        if row is not None and row.token == token and is_expired and not self._store.was_set_ahead:
            self._break("lease", f"asks to extend the expired claim of {key.request_id}")
        return await self._through("extend", key, self._longer("extend", key, token, lease_ms, now_ms))

    async def record(self, key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        """Record."""
        result = self._process.name, key
        self._tried.add(key)
        self._writing.append(key)
        try:
            is_held = await self._through(
                "record", key, lambda: self._ended(key, self._ledger.record(key, token, ending, now_ms))
            )
        except LedgerUnavailable:
            self._store.unwritten.add(result)
            raise
        finally:
            self._writing.remove(key)
        self._store.unwritten.discard(result)
        return is_held

    async def undo(self, key: Key, token: int, now_ms: int) -> bool:
        """Undo."""
        return await self._through(
            "undo", key, lambda: self._ended(key, self._ledger.undo(key, token, now_ms))
        )

    async def find(self, request_id: str) -> Sequence[Row]:
        """Find."""
        return await self._ledger.find(request_id)

    async def resolve(self, key: Key, ending: Ending, *, who: str, why: str, now_ms: int) -> bool:
        """Resolve."""
        is_resolved = await self._ledger.resolve(key, ending, who=who, why=why, now_ms=now_ms)
        await self._commit()
        return is_resolved

    def rows(
        self, *, since_ms: int = 0, after: int = 0, in_doubt_at_ms: int | None = None
    ) -> AsyncIterator[Row]:
        """Iterate over rows."""
        return self._ledger.rows(since_ms=since_ms, after=after, in_doubt_at_ms=in_doubt_at_ms)

    async def in_doubt(self, now_ms: int) -> Sequence[InDoubt]:
        """Count those in doubt."""
        return await self._ledger.in_doubt(now_ms)

    async def drop(self, *, before_ms: int, now_ms: int) -> int:
        """Drop old results."""
        if self._store.marked_s == float("inf"):
            self._store.marked_token = self._store.last_token
            self._store.marked_s = self._store.timeline.now_s
        now_s = STARTED_S + self._store.timeline.now_s
        if before_ms / 1000 > now_s - RETENTION_S + SKEW_S:
            self._break("retention", f"drops results that are {now_s - before_ms / 1000:.0f} s old")
        return await self._ledger.drop(before_ms=before_ms, now_ms=now_ms)

    async def close(self) -> Sequence[Key]:
        """Close."""
        self._is_closed = True
        for name, key in self._store.unwritten:
            if name == self._process.name and key not in self._tried:
                self._break("stop", f"closes the ledger without the result of {key.request_id}")
        return () if self._store.kind == "shared" else await self._ledger.close()

    def stopping(self) -> None:
        """Note that the process stops: every result that waits must be tried once more."""
        self._tried = set(self._writing)

    def _lease_now_ms(self, now_ms: int) -> float:
        """Return the time by which a lease expires, if the process asks at its own time `now_ms`."""
        return now_ms

    def _break(self, invariant: str, text: str) -> None:
        self._store.broken.append((invariant, f"{self._process.name} {text}"))

    def _answered(self, claim: Claim, answer: Answer) -> Answer:
        """Report whether the answer says that the request may have been sent before."""
        row = None if self._memory is None else self._memory.seen.pop(id(claim), None)
        in_doubt = row is not None and row.state in UNFINISHED and row.fingerprint == claim.fingerprint
        self._store.answered(self._process, claim.key, in_doubt=in_doubt)
        return answer

    def _longer(
        self, operation: str, key: Key, token: int, lease_ms: int, now_ms: int
    ) -> Callable[[], Awaitable[bool]]:
        """Return the work of an operation that gives a claim more time."""
        asked_s = self._store.timeline.now_s

        async def work() -> bool:
            is_held = await getattr(self._ledger, operation)(key, token, lease_ms, now_ms)
            # A late one proves nothing: its lease need not hold any more. Nothing is sent after it.
            is_late = self._store.timeline.now_s - asked_s > LATE_S
            if is_held and not is_late and (held := self._store.held.get(key)) is not None:
                self._hold(key, token, lease_ms, held.linkage, now_ms)
            return bool(is_held)

        return work

    async def _ended(self, key: Key, work: Awaitable[bool]) -> bool:
        is_held = await work
        if not is_held:
            self._store.failed.add(key)
        held = self._store.held.get(key)
        if held is not None and held.process == self._process.name:
            del self._store.held[key]
        return is_held

    def _hold(self, key: Key, token: int, lease_ms: int, linkage: bytes | None, now_ms: int) -> None:
        held = self._store.held.get(key)
        if self._store.outlives_process and held is not None and held.token > token:
            return  # a later claim was committed before this one was answered
        latest_s = self._store.timeline.now_s + lease_ms / 1000
        self._store.held[key] = Held(self._process.name, token, linkage, now_ms + lease_ms, latest_s)

    async def _through(self, operation: str, key: Key, work: Callable[[], Awaitable[T]]) -> T:
        store, probe = self._store, not key.request_id
        if self._is_closed:
            raise LedgerUnavailable("the ledger is closed")
        fault = Fault() if probe else store.next_fault(operation)
        await asyncio.sleep(fault.before_s)
        fails = fault.kind in {"gone", "busy"} or (fault.kind == "full" and operation == "claim")
        if operation in {"record", "undo"} and fault.kind in {"gone", "busy", "silent"}:
            store.failed.add(key)
        if fails:
            self.note(operation, key.request_id, fault.kind)
            raise (LedgerBusy if fault.kind == "busy" else LedgerUnavailable)(fault.kind)
        if operation == "claim" and (fault.kind == "silent" or fault.after_s > LATE_S):
            store.unclear.add(key)
        result = await work()
        await self._commit()
        if not probe:
            self.note(operation, key.request_id, result)
        await asyncio.sleep(fault.after_s)
        if fault.kind == "silent":
            raise LedgerUnavailable("the disk failed after the commit")
        return result

    async def _commit(self) -> None:
        if self._store.kind == "shared" and self._store.has_changed:
            snapshot = self._store.snapshot()
            await asyncio.sleep(COMMIT_S)
            self._store.sync(snapshot)


def _template(directory: Path) -> Path:
    """Return a new ledger's file, made once."""
    path = directory / "template.db"
    if not path.exists():
        LedgerFile(path, MARK).open().close()
    return path
