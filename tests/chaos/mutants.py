"""Mutants: gateways with one rule switched off. A chaos run must find a broken invariant in each of them.

A mutant replaces names of the service inside a gateway that `gateway_process.py` starts. If a name does not
exist, that gateway fails to start, so that the unchanged gateway is never taken for the mutant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from clients.alipayhk import transport
from clients.alipayhk.client import Client
from service.delivery.ledger_session import LedgerSession
from service.ledger import Granted, rules
from service.ledger.rules import Linkage
from service.ledger.sqlite import tables as sqlite_tables
from service.ledger.vault import Vault

FAR_FUTURE_MS: Final = 10**15
LATE_S: Final = 0.5
MIXED_EVERY: Final = 20


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule that is switched off."""

    what: str
    make: Callable[[], None]
    found_as: frozenset[str]
    """The run must break at least one of these invariants."""


def _replace(owner: Any, name: str, value: Any) -> None:
    if not hasattr(owner, name):
        raise AttributeError(f"{owner} has no {name}: adapt the mutant in tests/chaos/mutants.py")
    setattr(owner, name, value)


def _answers(change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    _replace(sqlite_tables, "answer_to", change(rules.answer_to))


def _grant_everything() -> None:
    def change(_: Callable[..., Any]) -> Callable[..., Any]:
        return lambda claim, row, linkage, now_ms, *, token: Granted(token, was_in_doubt=False)

    _answers(change)


def _ignore_leases() -> None:
    def change(true: Callable[..., Any]) -> Callable[..., Any]:
        return lambda claim, row, linkage, now_ms, *, token: true(
            claim, row, linkage, FAR_FUTURE_MS, token=token
        )

    _answers(change)


def _ignore_order() -> None:
    def change(true: Callable[..., Any]) -> Callable[..., Any]:
        return lambda claim, row, linkage, now_ms, *, token: true(
            claim, row, Linkage(), now_ms, token=token
        )

    _answers(change)


def _repeat_in_doubt() -> None:
    def change(true: Callable[..., Any]) -> Callable[..., Any]:
        return lambda claim, row, linkage, now_ms, *, token: true(
            replace(claim, may_repeat=True), row, linkage, now_ms, token=token
        )

    _answers(change)


def _undo_doubts() -> None:
    _replace(LedgerSession, "in_doubt", LedgerSession.undo)


def _never_sent() -> None:
    _replace(transport.Attempt, "sent", property(lambda _: False, lambda _, __: None))


def _one_fingerprint() -> None:
    _replace(Vault, "fingerprint", lambda *_: bytes(32))


def _record_late() -> None:
    record, tasks = LedgerSession.applied, set[asyncio.Task[None]]()

    async def later(session: Any, flight: Any, response: Any) -> None:
        async def write() -> None:
            await asyncio.sleep(LATE_S)
            await record(session, flight, response)

        tasks.add(asyncio.create_task(write()))

    _replace(LedgerSession, "applied", later)


def _mix_results() -> None:
    call, before, count = Client.call, dict[str, Any](), [0]

    async def mixed(client: Any, endpoint: Any, *arguments: Any) -> Any:
        verified = await call(client, endpoint, *arguments)
        count[0] += 1
        given = before.get(endpoint.api) if count[0] % MIXED_EVERY == 0 else None
        before[endpoint.api] = verified
        return given or verified

    _replace(Client, "call", mixed)


MUTANTS: Final[dict[str, Mutant]] = {
    "dedup": Mutant(
        "the ledger grants every claim",
        _grant_everything,
        frozenset({"doubled", "sent after", "concurrent"}),
    ),
    "undo": Mutant(
        "an attempt in doubt is undone", _undo_doubts, frozenset({"doubled", "false outcome", "sent after"})
    ),
    "sent": Mutant(
        "an attempt never counts as sent",
        _never_sent,
        frozenset({"false outcome", "doubled", "sent after"}),
    ),
    "repeat": Mutant(
        "a BindAccount in doubt is sent again", _repeat_in_doubt, frozenset({"doubled", "sent after"})
    ),
    "lease": Mutant("leases expire immediately", _ignore_leases, frozenset({"concurrent", "sent after"})),
    "fingerprint": Mutant(
        "contents have one fingerprint", _one_fingerprint, frozenset({"false outcome", "wrong result"})
    ),
    "order": Mutant("older requests are not stale", _ignore_order, frozenset({"order"})),
    "record": Mutant(
        "an outcome is reported before it is recorded", _record_late, frozenset({"lost", "sent after"})
    ),
    "mixed": Mutant("a call gets its predecessor's result", _mix_results, frozenset({"wrong result"})),
}
