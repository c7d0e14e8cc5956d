"""Mutants: gateways with one rule switched off. A chaos run must notice each of them, with each ledger.

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
from clients.alipayhk.pairing import PairedProtocol
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.errors import Unreachable
from service.delivery.flight import Flight
from service.delivery.ledger_session import LedgerSession
from service.delivery.pending_writes import PendingWrites
from service.ledger import Granted, rules
from service.ledger.postgres import ledger as postgres_ledger
from service.ledger.postgres import rows as postgres_rows
from service.ledger.postgres import statements as postgres_statements
from service.ledger.postgres.ledger import PostgresLedger
from service.ledger.rules import Linkage
from service.ledger.sqlite import statements
from service.ledger.sqlite import tables as sqlite_tables
from service.ledger.sqlite.ledger import SqliteLedger
from service.ledger.vault import Vault

FAR_FUTURE_MS: Final = 10**15
LATE_S: Final = 0.5
TOKEN: Final = "AND token = ?"
OPEN: Final = "AND state IN ('sending', 'in_doubt')"
DROP_ALL: Final = """
    DELETE FROM request WHERE id IN (
        SELECT id FROM request WHERE state IN ('applied', 'rejected', 'refused') LIMIT :limit)
"""
POSTGRES_DROP_ALL: Final = """
    WITH dropped AS (
        DELETE FROM alipayhk_request WHERE (request_id, api, client_id) IN (
            SELECT request_id, api, client_id FROM alipayhk_request
            WHERE state IN ('applied', 'rejected', 'refused') AND $1::bigint > 0 LIMIT $2::integer)
        RETURNING token)
    SELECT count(*) FROM dropped
"""
POSTGRES_RECORD: Final = """
    UPDATE alipayhk_request SET state = $5, result_status = $6, result_code = $7, sealed = $8,
            updated_ms = $9, change = alipayhk_next_change()
        WHERE request_id = $1 AND api = $2 AND client_id = $3 AND $4::bigint > 0
            AND $10::boolean IS NOT NULL
        RETURNING true
"""
MIXED_EVERY: Final = 20


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule that is switched off."""

    what: str
    make: Callable[[], None]


def _replace(owner: Any, name: str, value: Any) -> None:
    if not hasattr(owner, name):
        raise AttributeError(f"{owner} has no {name}: adapt the mutant in tests/chaos/mutants.py")
    setattr(owner, name, value)


def _answers(change: Callable[[Callable[..., Any]], Callable[..., Any]], *owners: Any) -> None:
    for owner in owners or (sqlite_tables, postgres_rows):
        _replace(owner, "answer_to", change(rules.answer_to))


def _shorten_in_postgres(lease_of: Callable[[int], int]) -> None:
    """Change the leases that claims write; the functions in the database compare them."""
    parameters = postgres_rows.claim_parameters

    def shorter(claim: Any, *more: Any, **others: Any) -> Any:
        return parameters(replace(claim, lease_ms=lease_of(claim.lease_ms)), *more, **others)

    _replace(postgres_ledger, "claim_parameters", shorter)


def _claim_nothing() -> None:
    _replace(SqliteLedger, "claim", SqliteLedger.look)
    _replace(PostgresLedger, "claim", PostgresLedger.look)


def _grant_everything() -> None:
    def change(_: Callable[..., Any]) -> Callable[..., Any]:
        return lambda claim, row, linkage, now_ms, *, token: Granted(token, was_in_doubt=False)

    _answers(change)


def _ignore_leases() -> None:
    def change(true: Callable[..., Any]) -> Callable[..., Any]:
        return lambda claim, row, linkage, now_ms, *, token: true(
            claim, row, linkage, FAR_FUTURE_MS, token=token
        )

    _answers(change, sqlite_tables)
    _shorten_in_postgres(lambda _: 1)


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


def _nothing(*_: Any, **__: Any) -> Any:
    return asyncio.sleep(0)


def _halve_leases() -> None:
    insert, claim = sqlite_tables.Tables.insert, sqlite_tables.Tables.claim

    def shorter(wanted: Any) -> Any:
        return replace(wanted, lease_ms=wanted.lease_ms // 2)

    def inserted(tables: Any, claims: Any, **how: Any) -> Any:
        return insert(tables, [replace(one, claim=shorter(one.claim)) for one in claims], **how)

    _replace(sqlite_tables.Tables, "insert", inserted)
    _replace(sqlite_tables.Tables, "claim", lambda on, wanted, now_ms: claim(on, shorter(wanted), now_ms))
    _shorten_in_postgres(lambda lease_ms: lease_ms // 2)


def _overwrite_resolutions() -> None:
    record = statements.RECORD
    if TOKEN not in record or OPEN not in record:
        raise AttributeError("RECORD has changed: adapt the mutant in tests/chaos/mutants.py")
    _replace(sqlite_tables, "RECORD", record.replace(TOKEN, "AND ? > 0").replace(OPEN, ""))
    # Outcomes that no longer come together are written by RECORD.
    _replace(sqlite_tables.Tables, "record_all", lambda *_: False)
    _replace(postgres_statements, "RECORD", POSTGRES_RECORD)


def _drop_all() -> None:
    _replace(sqlite_tables, "DROP", DROP_ALL)
    _replace(postgres_statements, "DROP", POSTGRES_DROP_ALL)


def _believe_repetitions() -> None:
    is_repeated = PairedProtocol._is_repeated

    def believed(protocol: Any, message: Any) -> bool:
        is_repeated(protocol, message)
        return False

    _replace(PairedProtocol, "_is_repeated", believed)


def _repeat_everything() -> None:
    initialize: Callable[..., None] = Endpoint.__init__

    def idempotent(endpoint: Any, **members: Any) -> None:
        initialize(endpoint, **(members | {"idempotent": True}))

    _replace(Endpoint, "__init__", idempotent)


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
    "dedup": Mutant("the ledger grants every claim", _grant_everything),
    "claim": Mutant(
        "a claim is granted and not written",
        _claim_nothing,
    ),
    "undo": Mutant("an attempt in doubt is undone", _undo_doubts),
    "sent": Mutant("an attempt never counts as sent", _never_sent),
    "cancel": Mutant(
        "a request is cancelled and undone after its first byte, when its last caller leaves",
        lambda: _replace(Flight, "sent", property(lambda _: False)),
    ),
    "timeout": Mutant(
        "a request without an answer in time counts as not sent",
        lambda: _replace(transport, "Timeout", Unreachable),
    ),
    "repeat": Mutant("a BindAccount in doubt is sent again", _repeat_in_doubt),
    "idempotent": Mutant("BindAccount counts as idempotent", _repeat_everything),
    "lease": Mutant("leases expire immediately", _ignore_leases),
    "short": Mutant("leases in the ledger last half as long", _halve_leases),
    "send_by": Mutant(
        "the lease is not checked before the first byte",
        lambda: _replace(LedgerSession, "may_send", lambda *_: True),
    ),
    "fingerprint": Mutant("contents have one fingerprint", _one_fingerprint),
    "order": Mutant("older requests are not stale, and a linkage is never busy", _ignore_order),
    "record": Mutant("an outcome is reported before it is recorded", _record_late),
    "drop": Mutant("an outcome is not recorded", lambda: _replace(LedgerSession, "_record", _nothing)),
    "flush": Mutant(
        "results that could not be recorded are not written later",
        lambda: _replace(PendingWrites, "flush", _nothing),
    ),
    "resolution": Mutant("an operator's decision is overwritten", _overwrite_resolutions),
    "retention": Mutant(
        "outcomes are dropped whatever their age",
        _drop_all,
    ),
    "mixed": Mutant("a call gets its predecessor's result", _mix_results),
    "repetition": Mutant("a repeated response answers the next request", _believe_repetitions),
}
UNNOTICED: Final = {
    "commits without fsync": (
        "the kernel keeps what a killed process wrote; the simulation loses power instead"
    ),
    "a token that is ignored on record": (
        "an overtaken holder records AlipayHK's answer, which the new holder gets, too, or that it is in "
        "doubt, which the new holder's outcome replaces; the tests of the ledger notice it"
    ),
}
"""Mutants that no run of processes can notice, and why."""
