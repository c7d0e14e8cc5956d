"""Mutants: the gateway with one rule off or wrong. The simulation must notice each of them.

A mutant replaces names of the service. If a name does not exist, that fails, so that the unchanged gateway
is never taken for the mutant.
"""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from clients.alipayhk.pairing import PairedProtocol
from clients.alipayhk.transport import Attempt
from service.delivery import ledger_session
from service.delivery.clock_skew import ClockSkew
from service.delivery.delivery import Delivery
from service.delivery.flight import Flight
from service.delivery.ledger_session import LedgerSession
from service.delivery.linkage_queue import LinkageQueue
from service.delivery.pacing import Breaker, Limiter, RetryBudget
from service.delivery.pending_writes import PendingWrites
from service.delivery.sender import Sender
from service.ledger import Granted, State, memory, rules
from service.ledger.lease import Clock, Lease
from service.ledger.memory import MemoryLedger
from service.ledger.rules import Linkage, Times
from service.ledger.sqlite import tables
from service.ledger.sqlite.file import LedgerFile
from service.ledger.sqlite.tables import Tables
from service.ledger.sqlite.writer import Writer
from service.ledger.vault import Vault

Patch = pytest.MonkeyPatch
Answers = Callable[..., Any]
FAR_FUTURE_MS: Final = 10**15
LATE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule that is off or wrong."""

    what: str
    seed: int
    """The first seed that notices it; -1 if no plan reaches what it changes."""
    make: Callable[[Patch], None]
    test: str = ""
    """The test that notices it then."""


def _set(owner: Any, name: str, value: Any) -> Callable[[Patch], None]:
    def make(patch: Patch) -> None:
        patch.setattr(owner, name, value)

    return make


def edited(owner: Any, name: str, before: str, after: str) -> Callable[[Patch], None]:
    """Replace one piece of the source of a class's or a module's function, or of a text, by another.

    A piece that does not occur exactly once is an error.
    """

    def make(patch: Patch) -> None:
        true = inspect.getattr_static(owner, name)
        source = true if isinstance(true, str) else _source_of(true)
        if source.count(before) != 1:
            raise LookupError(f"{before!r} occurs {source.count(before)} times in {name}")
        made: dict[str, Any] = {name: source.replace(before, after)}
        if not isinstance(true, str):
            exec(compile(made[name], f"<{name}>", "exec"), _function(true).__globals__, made)
        patch.setattr(owner, name, made[name])

    return make


def _function(attribute: Any) -> Any:
    return inspect.unwrap(getattr(attribute, "fget", attribute))


def _source_of(attribute: Any) -> str:
    return textwrap.dedent(inspect.getsource(_function(attribute)))


def _answers(change: Answers) -> Callable[[Patch], None]:
    """Change the rules of every level: `change` gets their arguments."""
    true = rules.answer_to

    def changed(claim: Any, row: Any, linkage: Any, now_ms: int, *, token: int) -> Any:
        return change(true, claim, row, linkage, now_ms, token)

    def make(patch: Patch) -> None:
        patch.setattr(memory, "answer_to", changed)
        patch.setattr(tables, "answer_to", changed)

    return make


def _all(*makes: Callable[[Patch], None]) -> Callable[[Patch], None]:
    def make(patch: Patch) -> None:
        for one in makes:
            one(patch)

    return make


def _without_sync(level: str) -> Callable[[Patch], None]:
    true = LedgerFile._prepare

    def prepare(file: Any, connection: Any) -> None:
        true(file, connection)
        connection.execute(f"PRAGMA synchronous = {level}")

    return _all(
        _set(LedgerFile, "_prepare", prepare),
        edited(Tables, "begin", "'FULL' if durable", f"'{level}' if durable"),
    )


def _half_lease(patch: Patch) -> None:
    true = LedgerSession.__init__

    def init(session: Any, *args: Any, **more: Any) -> None:
        true(session, *args, **{**more, "lease_s": more["lease_s"] / 2})

    patch.setattr(LedgerSession, "__init__", init)


def _arrival_order(patch: Patch) -> None:
    true = LinkageQueue.wait
    patch.setattr(LinkageQueue, "wait", lambda queue, linkage, _, **more: true(queue, linkage, 0, **more))


def _unshielded(patch: Patch) -> None:
    true = Flight.leave

    def leave(flight: Any, call: Any) -> None:
        true(flight, call)
        if not flight.deadlines:
            flight.cancel()

    patch.setattr(Flight, "leave", leave)


async def _nothing(*_: Any, **__: Any) -> None:
    pass


async def _zero(*_: Any, **__: Any) -> int:
    return 0


async def _true(*_: Any, **__: Any) -> bool:
    return True


def _record_late(patch: Patch) -> None:
    true, tasks = LedgerSession.applied, set[asyncio.Task[None]]()

    async def later(session: Any, flight: Any, response: Any) -> None:
        async def write() -> None:
            await asyncio.sleep(LATE_S)
            await true(session, flight, response)

        tasks.add(asyncio.get_running_loop().create_task(write()))

    patch.setattr(LedgerSession, "applied", later)


def _repeated_answers(patch: Patch) -> None:
    true = PairedProtocol._is_repeated

    def repeated(protocol: Any, message: Any) -> bool:
        true(protocol, message)
        return False

    patch.setattr(PairedProtocol, "_is_repeated", repeated)


def _late_callers(patch: Patch) -> None:
    true = Delivery._wait

    async def wait(delivery: Any, flight: Any, call: Any) -> Any:
        call.deadline += 5.0
        return await true(delivery, flight, call)

    patch.setattr(Delivery, "_wait", wait)


def _wrong_state(patch: Patch) -> None:
    true = LedgerSession._record

    async def record(session: Any, flight: Any, state: State, data: Any, result: Any) -> None:
        await true(session, flight, State.APPLIED if state is State.REJECTED else state, data, result)

    patch.setattr(LedgerSession, "_record", record)


MUTANTS: Final[dict[str, Mutant]] = {
    "dedup": Mutant(
        "the ledger grants every claim",
        0,
        _answers(lambda true, claim, row, linkage, now_ms, token: Granted(token, was_in_doubt=False)),
    ),
    "sync off": Mutant("SQLite syncs nothing before the first byte is sent", 90, _without_sync("OFF")),
    "sync normal": Mutant("SQLite syncs only at checkpoints", 90, _without_sync("NORMAL")),
    "sync late": Mutant(
        "an outcome that may be late becomes durable with the next claim only",
        90,
        _set(Writer, "_sync", lambda *_: None),
    ),
    "sync nothing": Mutant(
        "a transaction that changes nothing counts as one that syncs",
        346,
        edited(Writer, "_commit_batch", "if self._tables.commit():", "if self._tables.commit() or writes:"),
    ),
    "bind late": Mutant(
        "the outcome of a BindAccount may be late",
        191,
        edited(LedgerSession, "_record", "may_be_late=may_be_late", "may_be_late=True"),
    ),
    "lease half": Mutant("leases are half as long as an attempt", 0, _half_lease),
    "lease expired": Mutant(
        "leases expire immediately",
        3,
        _answers(
            lambda true, claim, row, linkage, _, token: true(
                claim, row, linkage, FAR_FUTURE_MS, token=token
            )
        ),
    ),
    "lease uncut": Mutant(
        "an impossibly long lease is not shortened",
        165,
        _all(_set(memory, "shortened", lambda *_: None), _set(tables, "shortened", lambda *_: None)),
    ),
    "lease by wall": Mutant(
        "a lease holds by the wall clock alone",
        317,
        _set(
            Lease, "holds", lambda lease, clock, wait_s=0.0: clock.now_ms() + wait_s * 1000 < lease.until_ms
        ),
    ),
    "lease by boot": Mutant(
        "a lease holds by the clock since boot alone",
        40,
        _set(
            Lease, "holds", lambda lease, clock, wait_s=0.0: clock.since_boot_s() + wait_s < lease.send_by_s
        ),
    ),
    "late claim": Mutant(
        "a claim counts however long it took", 10, _set(Clock, "is_late", lambda *_: False)
    ),
    "set back": Mutant(
        "leases are judged at the time of the question, when the clock has been set back since",
        242,
        edited(Times, "of", "cls(min(asked_ms, now_ms), ", "cls(asked_ms, "),
    ),
    "renew": Mutant("a resend does not renew the lease", 3, _set(LedgerSession, "renew", _true)),
    "fencing": Mutant(
        "holders of older claims can write",
        77,
        _set(MemoryLedger, "_held", lambda ledger, key, _: ledger._rows.get(key)),
    ),
    "send by": Mutant(
        "the lease is not checked before the first byte",
        40,
        _set(LedgerSession, "may_send", lambda *_: True),
    ),
    "fingerprint": Mutant(
        "all contents have one fingerprint", 2, _set(Vault, "fingerprint", lambda *_: bytes(32))
    ),
    "order": Mutant(
        "neither older nor concurrent requests for a linkage matter",
        1,
        _answers(
            lambda true, claim, row, _, now_ms, token: true(claim, row, Linkage(), now_ms, token=token)
        ),
    ),
    "stale": Mutant("older requests are sent", 1, _set(rules, "_rejected_for_time", lambda *_: None)),
    "busy": Mutant(
        "requests for one linkage are sent at once by two processes",
        7,
        _answers(
            lambda true, claim, row, linkage, now_ms, token: true(
                claim, row, Linkage(linkage.newest), now_ms, token=token
            )
        ),
    ),
    "queue": Mutant("requests that wait are sent in order of arrival", 1, _arrival_order),
    "shield": Mutant("a request is cancelled with its caller although it was sent", 133, _unshielded),
    "in doubt": Mutant(
        "a request without an answer is undone", 0, _set(LedgerSession, "in_doubt", LedgerSession.undo)
    ),
    "heal": Mutant("pending results are never written", 1, _set(PendingWrites, "_flush_one", _nothing)),
    "pending": Mutant(
        "pending results do not hold back later claims", 20, _set(PendingWrites, "flush_for", _true)
    ),
    "retention never": Mutant("nothing is ever dropped", 24, _set(MemoryLedger, "drop", _zero)),
    "retention clock": Mutant(
        "results are dropped by a clock that may be wrong",
        94,
        _set(ClockSkew, "agrees", property(lambda _: True)),
    ),
    "repeated answer": Mutant("an answer that comes twice is used twice", 68, _repeated_answers),
    "sent": Mutant(
        "an attempt never counts as sent",
        0,
        _set(Attempt, "sent", property(lambda _: False, lambda _, __: None)),
    ),
    "clock stop": Mutant(
        "BindAccount goes on while answers do not count",
        0,
        _all(_set(ClockSkew, "stops", lambda *_: False), _set(ClockSkew, "would_reject", lambda *_: False)),
    ),
    "abandon": Mutant("a cancelled claim is not undone", 7, _set(Sender, "_abandon", _nothing)),
    "doubt lost": Mutant(
        "a grant does not say that an earlier attempt is in doubt",
        3,
        _answers(
            lambda true, claim, row, linkage, now_ms, token: _certain(
                true(claim, row, linkage, now_ms, token=token)
            )
        ),
    ),
    "repeat": Mutant(
        "a BindAccount in doubt is sent again",
        0,
        _answers(
            lambda true, claim, row, linkage, now_ms, token: true(
                replace(claim, may_repeat=True), row, linkage, now_ms, token=token
            )
        ),
    ),
    "record late": Mutant("an outcome is reported before it is recorded", 1, _record_late),
    "wrong state": Mutant("a rejection is recorded as a success", 3, _wrong_state),
    "attempts": Mutant(
        "an outage limits no attempts",
        78,
        _all(
            _set(RetryBudget, "spend", lambda *_: True),
            edited(Breaker, "failed", "self.is_open, self._open_until_s = True,", "_, _ = True,"),
        ),
    ),
    "deadline": Mutant("calls wait longer than their deadlines", 7, _late_callers),
    "doubt replaced": Mutant(
        "a later attempt's failure ends the doubt about an earlier one",
        27,
        edited(Flight, "fail", "self.in_doubt |= ", "self.in_doubt = "),
    ),
    "failure replaced": Mutant(
        "a local failure replaces that of an attempt that was sent",
        27,
        edited(Flight, "failure", "(sent or self.failures)[-1]", "self.failures[-1]"),
    ),
    "busy forgets doubt": Mutant(
        "a busy linkage hides that an earlier attempt is in doubt",
        39,
        edited(LedgerSession, "_meaning", "(Granted, LinkageBusy)", "Granted"),
    ),
    "pending forgets doubt": Mutant(
        "a pending result sets no doubt",
        25,
        edited(LedgerSession, "_ask", "flight.in_doubt |= claim.key in self._pending", "pass"),
    ),
    "one deadline for all": Mutant(
        "the deadline of one call cancels the flight of all",
        10,
        edited(Delivery, "_wait", " and len(flight.deadlines) == 1", ""),
    ),
    "earliest deadline": Mutant(
        "a flight ends at the earliest deadline of its calls",
        23,
        edited(Flight, "left_s", "max(self", "min(self"),
    ),
    "pending without linkage": Mutant(
        "a pending result holds back only claims of its own id",
        20,
        edited(PendingWrites, "write", "_Pending(flight.linkage, write)", "_Pending(None, write)"),
    ),
    "pending dropped": Mutant(
        "a pending result is dropped if it cannot be written again",
        1,
        edited(
            PendingWrites,
            "_flush_one",
            "except LedgerUnavailable:\n            return",
            "except LedgerUnavailable:\n            pass",
        ),
    ),
    "old lease": Mutant(
        "a renewed claim keeps its old lease",
        17,
        edited(
            LedgerSession, "renew", "flight.held = Held(held.token, asked.lease(self._lease_ms))", "pass"
        ),
    ),
    "expired extended": Mutant(
        "an expired claim that was not sent is extended",
        40,
        edited(LedgerSession, "renew", "not flight.sent and not self.may_send(flight)", "False"),
    ),
    "oldest applied": Mutant(
        "SQLite compares with the oldest of the newer applied requests",
        2,
        edited(tables, "SELECT_LINKAGE", "ORDER BY biz_time_ms DESC", "ORDER BY biz_time_ms"),
    ),
    "any state busy": Mutant(
        "SQLite takes every lease of a linkage for that of a request being sent",
        2,
        edited(tables, "SELECT_LINKAGE", "state = 'sending' AND ", ""),
    ),
    "turn lost": Mutant(
        "a request cancelled at its turn does not pass it on",
        50,
        edited(LinkageQueue, "wait", "first.done() and not first.cancelled()", "False"),
    ),
    "slot lost": Mutant(
        "a request cancelled when it gets a slot does not return it",
        21,
        edited(Limiter, "wait", "turn.done() and not turn.cancelled()", "False"),
    ),
    "probe lost": Mutant(
        "a probe that sends nothing is never over",
        78,
        edited(Breaker, "release_probe", "self._probing = False", "pass"),
    ),
    "sent before check": Mutant(
        "an attempt counts as sent although its lease had expired",
        42,
        edited(
            Attempt, "start", "if not self.may_send():", "self.sent = True\n    if not self.may_send():"
        ),
    ),
    "tie sent": Mutant(
        "other content with the same biz_time is sent",
        1,
        edited(
            rules,
            "_rejected_for_time",
            "None if claim.fingerprint in newest.fingerprints else ClaimRejected.TIE",
            "None",
        ),
    ),
    "told not sent": Mutant(
        "a call is told `not_sent` while another one waits for the same flight",
        37,
        edited(
            Delivery,
            "_wait",
            "flight.sent or flight.task.cancelled() or (flight.cancelled and not flight.attempts)",
            "True",
        ),
    ),
    "slow renewal": Mutant(
        "a renewal counts however long it took",
        10,
        edited(LedgerSession, "renew", "is_held and not self._clock.is_late(asked)", "is_held"),
    ),
    "expired held": Mutant(
        "a claim is renewed although its lease has expired and the linkage is busy",
        431,
        edited(
            MemoryLedger,
            "_lengthen",
            "row.state is State.SENDING and row.lease_until_ms > times.latest_ms",
            "row.state is State.SENDING",
        ),
    ),
    "undo doubt": Mutant(
        "undo removes a request whose earlier attempt is in doubt",
        86,
        edited(MemoryLedger, "undo", "row.was_in_doubt or ", ""),
    ),
    "undo refused": Mutant(
        "undo removes a request that was refused before",
        350,
        edited(MemoryLedger, "undo", " or row.ending is not None", ""),
    ),
    "undo sqlite": Mutant(
        "SQLite's undo removes a request whose earlier attempt is in doubt",
        211,
        edited(tables, "REMOVE", " AND was_in_doubt = 0", ""),
    ),
    "drop doubt": Mutant(
        "old requests in doubt are dropped",
        24,
        edited(MemoryLedger, "drop", "if row.state not in UNFINISHED", "if row.state is not State.SENDING"),
    ),
    "drop sqlite": Mutant(
        "SQLite drops old requests in doubt",
        24,
        edited(tables, "DROP", "'refused')", "'refused', 'in_doubt')"),
    ),
    "closed first": Mutant(
        "the ledger is closed before the pending results are written",
        20,
        edited(
            LedgerSession,
            "close",
            "await self._pending.close()\n    for key in await self._ledger.close():",
            "await self._ledger.close()\n    await self._pending.close()\n    for key in ():",
        ),
    ),
    "pooled again": Mutant(
        "a request is sent again on a used connection after a repeated answer",
        101,
        edited(
            Sender,
            "_attempt",
            "failure is not None and isinstance(failure.error, errors.Repeated)",
            "False",
        ),
    ),
    "retention ms": Mutant(
        "the retention's seconds are taken for milliseconds",
        0,
        edited(LedgerSession, "drop", "round(older_than_s * 1000)", "round(older_than_s)"),
    ),
    "answer forgotten": Mutant(
        "a response is not known before it is recorded",
        96,
        edited(Sender, "_attempt", "response = flight.answer = ", "response = "),
    ),
    "replay hidden": Mutant(
        "a replayed success is not marked",
        0,
        edited(ledger_session, "replay", "response.replayed = True", "response.replayed = False"),
    ),
    "unshielded claim": Mutant(
        "a claim that is being committed is cancelled with its flight",
        15,
        edited(Flight, "cancel", "self.entered is not FlightState.CLAIMING", "True"),
    ),
    "last attempt sent": Mutant(
        "a flight counts as sent only if its last attempt was",
        99,
        edited(Flight, "sent", "in self.attempts", "in self.attempts[-1:]"),
    ),
    "joins cancelled": Mutant(
        "a call joins a flight that is being cancelled",
        72,
        edited(Delivery, "deliver", "flight.cancelled or flight.refused", "flight.refused"),
    ),
    "flushed twice": Mutant(
        "a pending result is written by two tasks one after the other",
        146,
        edited(PendingWrites, "_flush_one", "if self._pending.get(key) is not pending:", "if False:"),
    ),
    "rejection replay hidden": Mutant(
        "a replayed rejection is not marked",
        3,
        edited(LedgerSession, "_meaning", "flight.replayed = True", "pass"),
    ),
}


def _certain(answer: Any) -> Any:
    return replace(answer, was_in_doubt=False) if isinstance(answer, Granted) else answer
