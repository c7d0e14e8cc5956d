"""Mutants: the gateway with one rule off or wrong. The simulation must notice each of them.

A mutant replaces names of the service. If a name does not exist, that fails, so that the unchanged gateway
is never taken for the mutant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from clients.alipayhk.pairing import PairedProtocol
from clients.alipayhk.transport import Attempt
from service.delivery.clock_skew import ClockSkew
from service.delivery.delivery import Delivery
from service.delivery.flight import Flight
from service.delivery.ledger_session import LedgerSession
from service.delivery.linkage_queue import LinkageQueue
from service.delivery.pacing import Breaker, RetryBudget
from service.delivery.pending_writes import PendingWrites
from service.delivery.sender import Sender
from service.ledger import Granted, State, memory, rules
from service.ledger.lease import Clock, Lease
from service.ledger.memory import MemoryLedger
from service.ledger.rules import Linkage
from service.ledger.sqlite import tables
from service.ledger.sqlite.file import LedgerFile
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
    """The first seed that notices it."""
    make: Callable[[Patch], None]


def _set(owner: Any, name: str, value: Any) -> Callable[[Patch], None]:
    def make(patch: Patch) -> None:
        patch.setattr(owner, name, value)

    return make


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

    return _set(LedgerFile, "_prepare", prepare)


def _half_lease(patch: Patch) -> None:
    true = LedgerSession.__init__

    def init(session: Any, *args: Any, **more: Any) -> None:
        true(session, *args, **{**more, "lease_s": more["lease_s"] / 2})

    patch.setattr(LedgerSession, "__init__", init)


def _arrival_order(patch: Patch) -> None:
    true = LinkageQueue._wait
    patch.setattr(LinkageQueue, "_wait", lambda queue, linkage, _: true(queue, linkage, 0))


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

    async def record(session: Any, flight: Any, state: State, data: bytes, result: Any) -> None:
        await true(session, flight, State.APPLIED if state is State.REJECTED else state, data, result)

    patch.setattr(LedgerSession, "_record", record)


MUTANTS: Final[dict[str, Mutant]] = {
    "dedup": Mutant(
        "the ledger grants every claim",
        0,
        _answers(lambda true, claim, row, linkage, now_ms, token: Granted(token, was_in_doubt=False)),
    ),
    "sync off": Mutant("SQLite syncs nothing before the first byte is sent", 7, _without_sync("OFF")),
    "sync normal": Mutant("SQLite syncs only at checkpoints", 25, _without_sync("NORMAL")),
    "lease half": Mutant("leases are half as long as an attempt", 7, _half_lease),
    "lease expired": Mutant(
        "leases expire immediately",
        5,
        _answers(
            lambda true, claim, row, linkage, _, token: true(
                claim, row, linkage, FAR_FUTURE_MS, token=token
            )
        ),
    ),
    "lease uncut": Mutant(
        "an impossibly long lease is not shortened",
        156,
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
        117,
        _set(
            Lease, "holds", lambda lease, clock, wait_s=0.0: clock.since_boot_s() + wait_s < lease.send_by_s
        ),
    ),
    "late claim": Mutant(
        "a claim counts however long it took", 10, _set(Clock, "is_late", lambda *_: False)
    ),
    "renew": Mutant("a resend does not renew the lease", 10, _set(LedgerSession, "renew", _true)),
    "fencing": Mutant(
        "holders of older claims can write",
        32,
        _set(MemoryLedger, "_held", lambda ledger, key, _: ledger._rows.get(key)),
    ),
    "send by": Mutant(
        "the lease is not checked before the first byte",
        38,
        _set(LedgerSession, "may_send", lambda *_: True),
    ),
    "fingerprint": Mutant(
        "all contents have one fingerprint", 1, _set(Vault, "fingerprint", lambda *_: bytes(32))
    ),
    "order": Mutant(
        "neither older nor concurrent requests for a linkage matter",
        2,
        _answers(
            lambda true, claim, row, _, now_ms, token: true(claim, row, Linkage(), now_ms, token=token)
        ),
    ),
    "stale": Mutant("older requests are sent", 2, _set(rules, "_rejected_for_time", lambda *_: None)),
    "busy": Mutant(
        "requests for one linkage are sent at once by two processes",
        5,
        _answers(
            lambda true, claim, row, linkage, now_ms, token: true(
                claim, row, Linkage(linkage.newest), now_ms, token=token
            )
        ),
    ),
    "queue": Mutant("requests that wait are sent in order of arrival", 10, _arrival_order),
    "shield": Mutant("a request is cancelled with its caller although it was sent", 133, _unshielded),
    "in doubt": Mutant(
        "a request without an answer is undone", 0, _set(LedgerSession, "in_doubt", LedgerSession.undo)
    ),
    "heal": Mutant("pending results are never written", 4, _set(PendingWrites, "_flush_one", _nothing)),
    "pending": Mutant(
        "pending results do not hold back later claims", 90, _set(PendingWrites, "flush_for", _true)
    ),
    "retention never": Mutant("nothing is ever dropped", 239, _set(MemoryLedger, "drop", _zero)),
    "retention clock": Mutant(
        "results are dropped by a clock that may be wrong",
        186,
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
    "abandon": Mutant("a cancelled claim is not undone", 13, _set(Sender, "_abandon", _nothing)),
    "doubt lost": Mutant(
        "a grant does not say that an earlier attempt is in doubt",
        7,
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
    "wrong state": Mutant("a rejection is recorded as a success", 5, _wrong_state),
    "attempts": Mutant(
        "an outage limits no attempts",
        78,
        _all(
            _set(RetryBudget, "spend", lambda *_: True),
            _set(Breaker, "would_reject", lambda *_: False),
            _set(Breaker, "is_open", property(lambda _: False)),
        ),
    ),
    "deadline": Mutant("calls wait longer than their deadlines", 2, _late_callers),
}


def _certain(answer: Any) -> Any:
    return replace(answer, was_in_doubt=False) if isinstance(answer, Granted) else answer
