"""Races between two transactions of the ledger on PostgreSQL, and faults that each of them must notice.

A gate stops the first transaction before it writes or commits, and the second one starts then. The
simulation executes one statement at a time, so that it cannot show these.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from service.ledger import Granted, InProgress, LinkageBusy, Reused
from service.ledger.postgres.database import Server, connected
from service.ledger.postgres.ledger import CLAIM_ID_BYTES, PostgresLedger
from service.ledger.postgres.lost_claims import LostClaim
from tests.ledger.levels import IN_DOUBT, NOW_MS, a_claim, ended, granted, opened
from tests.ledger.postgres_functions import Piece, edited_function

BUSY_S: Final = 60.0
"""Long enough for a busy machine."""
GATE: Final = "PERFORM pg_advisory_xact_lock_shared(4711);"
CLOSE, OPEN = "SELECT pg_advisory_lock(4711)", "SELECT pg_advisory_unlock(4711)"
WAITING: Final = """
    SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
    WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
"""
PATIENT: Final = ("SET lock_timeout = '1s'", f"SET lock_timeout = '{BUSY_S}s'")
DURABLE: Final = "PERFORM alipayhk_commit_durably(false);"
CLAIM_GATE: Final = {
    "claim": [PATIENT, (DURABLE, f"{DURABLE} {GATE}")],
    "extend": [PATIENT],
    "undo": [PATIENT],
}
"""A claim stops before it is granted."""
NO_LOCK: Final = {"lock": [("PERFORM pg_advisory_xact_lock(number);", "")]}

ONE, OTHER = a_claim("one"), a_claim("other", biz_time_ms=NOW_MS + 1)
CHANGED: Final = a_claim("one", fingerprint=b"other content", linkage=b"linkage M")
Edits = dict[str, list[Piece]]


@dataclass(frozen=True, slots=True)
class Race:
    """Two operations: the first one stops at the gate, and then the second one starts."""

    before: Callable[[PostgresLedger], Awaitable[Any]]
    first: Callable[[PostgresLedger, Any], Awaitable[Any]]
    second: Callable[[PostgresLedger, Any], Awaitable[Any]]
    ends: list[object]
    """What the two return, in any order: an answer's class, or a value."""
    fault: Edits
    """What the race notices."""


async def _nothing(_: PostgresLedger) -> None:
    pass


async def _in_doubt(ledger: PostgresLedger) -> None:
    await ended(ledger, ONE, IN_DOUBT)


async def _expired(ledger: PostgresLedger) -> int:
    token = await granted(ledger, a_claim("one", lease_ms=1))
    await asyncio.sleep(0.01)
    return token


RACES: Final = {
    "two requests for a linkage are not granted at once": Race(
        _nothing,
        lambda ledger, _: ledger.claim(ONE, NOW_MS),
        lambda ledger, _: ledger.claim(OTHER, NOW_MS),
        [Granted, LinkageBusy],
        NO_LOCK,
    ),
    "one id with two contents is granted once": Race(
        _nothing,
        lambda ledger, _: ledger.claim(ONE, NOW_MS),
        lambda ledger, _: ledger.claim(CHANGED, NOW_MS),
        [Granted, Reused],
        {"claim": [("ON CONFLICT DO NOTHING RETURNING", "RETURNING")]},
    ),
    "a request in doubt is granted once": Race(
        _in_doubt,
        lambda ledger, _: ledger.claim(ONE, NOW_MS),
        lambda ledger, _: ledger.claim(ONE, NOW_MS),
        [Granted, InProgress],
        {**NO_LOCK, "claim": [("\n                    AND change = p_seen_change", "")]},
    ),
    "a claim with an expired lease is not extended while another one is granted": Race(
        _expired,
        lambda ledger, _: ledger.claim(OTHER, NOW_MS),
        lambda ledger, token: ledger.extend(ONE.key, token, 5000, NOW_MS),
        [Granted, False],
        NO_LOCK,
    ),
    "a claim that is being granted is undone by its id": Race(
        _nothing,
        lambda ledger, _: ledger.claim(ONE, NOW_MS),
        lambda ledger, _: ledger._undo_claim(LostClaim(ONE.key, ONE.linkage, bytes(CLAIM_ID_BYTES))),
        [Granted, True],
        NO_LOCK,
    ),
}


@asynccontextmanager
async def closed_gate(url: str, *all_edits: Edits) -> AsyncIterator[Server]:
    """Replace functions, and close the gate on a connection that can open it."""
    pieces: Edits = {}
    for edits in all_edits:
        for name, more in edits.items():
            pieces[name] = [*pieces.get(name, []), *more]
    async with connected(url, "the test's database", BUSY_S) as server:
        for name, ones in pieces.items():
            await server.execute(edited_function(name, *ones))
        await server.fetch(CLOSE)
        yield server


async def _stopped(gate: Server, count: int, task: asyncio.Future[Any]) -> None:
    """Return when so many transactions wait for a lock, or when the last one has ended."""
    while await gate.value(WAITING) < count and not task.done():  # noqa: ASYNC110  (a state of the server)
        await asyncio.sleep(0.01)


async def result(race: Race, url: str, key: Path, *edits: Edits) -> list[object]:
    """Run a race; return what the two operations returned."""
    ledgers = [opened(url, key, timeout_s=BUSY_S)[0] for _ in range(2)]
    one, other = (ledger for ledger in ledgers if isinstance(ledger, PostgresLedger))
    one._random_bytes = bytes
    before = await race.before(one)
    async with closed_gate(url, *edits) as gate:
        tasks = []
        for ledger, operation in ((one, race.first), (other, race.second)):
            tasks.append(asyncio.ensure_future(operation(ledger, before)))
            await _stopped(gate, len(tasks), tasks[-1])
        await gate.fetch(OPEN)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    await one.close()
    await other.close()
    return [end if isinstance(end, bool) else type(end) for end in ends]


@pytest.mark.parametrize("name", RACES)
async def test_race(name: str, postgres_url: str, ledger_key: Path) -> None:
    ends = await result(RACES[name], postgres_url, ledger_key, CLAIM_GATE)
    assert sorted(map(str, ends)) == sorted(map(str, RACES[name].ends))


@pytest.mark.parametrize("name", RACES)
async def test_race_notices_its_fault(name: str, postgres_url: str, ledger_key: Path) -> None:
    ends = await result(RACES[name], postgres_url, ledger_key, CLAIM_GATE, RACES[name].fault)
    assert sorted(map(str, ends)) != sorted(map(str, RACES[name].ends))
