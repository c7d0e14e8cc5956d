"""The order of requests that wait for a linkage in several gateways."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from service.ledger import Answer, ClaimRejected, Ending, Granted, Ledger, LinkageBusy
from service.ledger.postgres.database import connected
from service.ledger.postgres.ledger import PostgresLedger
from tests.ledger.clocked import AtTestTime
from tests.ledger.levels import APPLIED, IN_DOUBT, NOW_MS, a_claim, ended, granted, opened

HOUR_MS = 3_600_000
UNTIL = "SELECT until_ms FROM alipayhk_waiting WHERE request_id = 'older'"
OLDER, YOUNGER = a_claim("older", biz_time_ms=NOW_MS + 1), a_claim("younger", biz_time_ms=NOW_MS + 2)


@pytest.fixture
async def pair(postgres_url: str, ledger_key: Path) -> AsyncIterator[tuple[Ledger, Ledger]]:
    """Return the ledgers of two gateways on one database."""
    one, other = (opened(postgres_url, ledger_key)[0] for _ in range(2))
    yield one, other
    await one.close()
    await other.close()


async def until(happens: Callable[[], Awaitable[bool]]) -> float:
    """Wait until something is true; return how long that took, in seconds."""
    start_s = time.monotonic()
    while not await happens():
        assert time.monotonic() - start_s < 30
        await asyncio.sleep(0.01)
    return time.monotonic() - start_s


async def test_request_that_waits_in_its_process_is_granted_before_a_younger_one(
    pair: tuple[Ledger, Ledger],
) -> None:
    one, other = pair
    first = a_claim("first", biz_time_ms=NOW_MS)
    token = await granted(one, first)
    await one.queue(OLDER)
    assert isinstance(await other.claim(YOUNGER, NOW_MS), LinkageBusy)
    assert await one.record(first.key, token, APPLIED, NOW_MS)
    assert isinstance(await other.claim(YOUNGER, NOW_MS), LinkageBusy)
    token = await granted(one, OLDER)
    assert await one.record(OLDER.key, token, APPLIED, NOW_MS)
    assert isinstance(await other.claim(YOUNGER, NOW_MS), Granted)


async def test_request_that_leaves_blocks_no_younger_one(pair: tuple[Ledger, Ledger]) -> None:
    one, other = pair
    await one.queue(a_claim("older", biz_time_ms=NOW_MS + 1, lease_ms=60_000))
    busy: Answer = await other.claim(YOUNGER, NOW_MS)
    one.leave(OLDER.key)
    async with asyncio.timeout(20):
        while isinstance(busy, LinkageBusy):
            await other.wait(busy, 60)  # it may be woken because the connection for notifications is new
            busy = await other.claim(YOUNGER, NOW_MS)
    assert isinstance(busy, Granted)


async def test_request_that_leaves_one_process_keeps_its_place_in_the_other(
    pair: tuple[PostgresLedger, PostgresLedger],
) -> None:
    one, other = pair
    for ledger in (other, one):
        await ledger.queue(OLDER)
    one.leave(OLDER.key)
    await asyncio.wait(one._writing)
    assert isinstance(await one.claim(YOUNGER, NOW_MS), LinkageBusy)


@pytest.mark.parametrize("ending", [None, IN_DOUBT, APPLIED])
async def test_request_granted_to_one_process_keeps_its_place_in_the_other_until_it_has_an_outcome(
    pair: tuple[Ledger, Ledger], ending: Ending | None
) -> None:
    one, other = pair
    for ledger in pair:
        await ledger.queue(OLDER)
    token = await granted(one, OLDER)
    if ending is None:
        assert await one.undo(OLDER.key, token, NOW_MS)
    else:
        assert await one.record(OLDER.key, token, ending, NOW_MS)
    answer = await one.claim(YOUNGER, NOW_MS)
    assert isinstance(answer, Granted if ending is APPLIED else LinkageBusy)
    other.leave(OLDER.key)


async def test_request_that_is_rejected_wakes_those_that_waited_for_it(pair: tuple[Ledger, Ledger]) -> None:
    one, other = pair
    newer = a_claim("newer", biz_time_ms=NOW_MS + 2)
    newest = a_claim("newest", biz_time_ms=NOW_MS + 3, lease_ms=60_000)
    token = await granted(one, newer)
    await one.queue(a_claim("older", biz_time_ms=NOW_MS + 1, lease_ms=60_000))
    assert await one.record(newer.key, token, APPLIED, NOW_MS)
    busy = await other.claim(newest, NOW_MS)
    assert await one.claim(OLDER, NOW_MS) is ClaimRejected.STALE
    async with asyncio.timeout(20):
        while isinstance(busy, LinkageBusy):
            await other.wait(busy, 60)
            busy = await other.claim(newest, NOW_MS)
    assert isinstance(busy, Granted)


async def test_grant_that_was_decided_is_not_written_if_its_linkage_has_changed(
    pair: tuple[PostgresLedger, PostgresLedger],
) -> None:
    one, other = pair
    await ended(other, OLDER)
    again = replace(OLDER, key=a_claim("again").key)
    facts = await one._ask(again, NOW_MS, writes=False)
    decided = facts.decided(was_in_doubt=False)
    await ended(other, YOUNGER)
    assert (await one._ask(again, NOW_MS, writes=True, decided=decided)).granted is None
    assert await one.claim(again, NOW_MS) is ClaimRejected.STALE


async def test_request_in_doubt_keeps_its_place_until_it_is_granted(pair: tuple[Ledger, Ledger]) -> None:
    """Its gateway decides that it may be sent again, and asks a second time to write that."""
    one, other = pair
    assert isinstance(one, PostgresLedger)
    await ended(one, OLDER, IN_DOUBT)
    facts = await one._ask(OLDER, NOW_MS, writes=True, claim_id=b"id")
    assert facts.answer(OLDER) == Granted(0, was_in_doubt=True)
    assert isinstance(await other.claim(YOUNGER, NOW_MS), LinkageBusy)
    assert isinstance(await one.claim(OLDER, NOW_MS), Granted)


async def test_wait_that_began_before_the_clock_was_set_back_blocks_nobody(
    postgres_ledger: AtTestTime,
) -> None:
    first = a_claim("first", biz_time_ms=NOW_MS)
    token = await granted(postgres_ledger, first, NOW_MS + HOUR_MS)
    assert isinstance(await postgres_ledger.claim(OLDER, NOW_MS + HOUR_MS), LinkageBusy)
    assert await postgres_ledger.record(first.key, token, APPLIED, NOW_MS + HOUR_MS)
    assert isinstance(await postgres_ledger.claim(YOUNGER, NOW_MS + HOUR_MS), LinkageBusy)
    assert isinstance(await postgres_ledger.claim(YOUNGER, NOW_MS), Granted)
    await postgres_ledger.close()


async def test_place_of_a_request_that_waits_is_kept(
    pair: tuple[Ledger, Ledger], postgres_url: str
) -> None:
    one, other = pair
    await one.queue(OLDER)
    async with connected(postgres_url, "the test's database", 60) as server:
        first_ms = await server.value(UNTIL)

        async def is_kept() -> bool:
            return bool(await server.value(UNTIL) > first_ms)

        await until(is_kept)
        assert isinstance(await other.claim(YOUNGER, NOW_MS), LinkageBusy)
        one.leave(OLDER.key)

        async def is_gone() -> bool:
            return not await server.fetch(UNTIL)

        await until(is_gone)


async def test_place_of_a_gateway_that_is_gone_counts_for_some_seconds(
    pair: tuple[Ledger, Ledger],
) -> None:
    one, other = pair
    await one.queue(OLDER)
    await one.close()

    async def is_granted() -> bool:
        return isinstance(await other.claim(YOUNGER, NOW_MS), Granted)

    assert 0.5 < await until(is_granted) < 20


async def test_place_of_corrected_content_is_that_of_its_own_linkage(
    pair: tuple[Ledger, Ledger],
) -> None:
    """A request id that was not sent can be used with other content."""
    one, other = pair
    for linkage in (b"linkage L", b"linkage M"):
        await granted(other, a_claim(f"first at {linkage!r}", linkage=linkage, biz_time_ms=NOW_MS))
        claim = a_claim("older", linkage=linkage, fingerprint=linkage, biz_time_ms=NOW_MS + 1)
        assert isinstance(await one.claim(claim, NOW_MS), LinkageBusy)
    assert isinstance(other, PostgresLedger)
    (place,) = await other._database.fetch("SELECT * FROM alipayhk_waiting WHERE request_id = 'older'")
    facts = await other._ask(claim, NOW_MS, writes=True)
    assert place["lock"] == facts.lock
