"""Calls of several gateways that wait for a request or a linkage: their order, and what wakes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from service.delivery.ledger_wait import POLL_S
from service.ledger import Claim, Granted, InProgress, Known, LinkageBusy
from service.ledger.postgres.ledger import PostgresLedger
from service.ledger.postgres.lost_claims import LostClaim
from service.ledger.postgres.wakeups import REMEMBERED, Place, Wakeups
from tests.ledger.levels import APPLIED, IN_DOUBT, NOW_MS, a_bind, a_claim, ended, granted
from tests.ledger.on_server import OnServer, eventually

LONG_S: Final = 60.0
"""A wait that ends only because of a notification."""
LEASE_MS: Final = 60_000
End = Callable[[PostgresLedger, Claim, int], Awaitable[Any]]


@pytest.fixture
async def one(on_server: OnServer) -> AsyncIterator[PostgresLedger]:
    ledger = on_server.open()
    yield ledger
    await ledger.close()


@pytest.fixture
async def other(on_server: OnServer, one: PostgresLedger) -> AsyncIterator[PostgresLedger]:
    """Return the ledger of another gateway, which listens already."""
    ledger = on_server.open()
    await is_listening(ledger)
    yield ledger
    await ledger.close()


def wakeups(ledger: PostgresLedger) -> Wakeups:
    return ledger._wakeups


async def is_listening(ledger: PostgresLedger) -> None:
    """Wait until a ledger listens; it starts with its first claim."""
    await ended(ledger, a_bind("first"))
    await heard(ledger, 0)


async def heard(ledger: PostgresLedger, before: int) -> None:
    """Wait until a ledger has heard more notifications."""

    async def count() -> int:
        return wakeups(ledger).count

    await eventually(count, lambda count: count > before)


async def wakes_up(ledger: PostgresLedger, answer: Any, end: Awaitable[Any]) -> float:
    """Return how long a waiting call of a ledger waited after something was done."""
    waiting = asyncio.create_task(ledger.wait(answer, LONG_S))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await end
    ended_s = time.monotonic()
    await waiting
    return time.monotonic() - ended_s


# -- the order


async def deliver(ledger: PostgresLedger, claim: Claim, sent: list[str]) -> None:
    """Claim a request until it is granted, and apply it."""
    while not isinstance(answer := await ledger.claim(claim, NOW_MS), Granted):
        assert isinstance(answer, LinkageBusy)
        await ledger.wait(answer, POLL_S)
    sent.append(claim.key.request_id)
    assert await ledger.record(claim.key, answer.token, APPLIED, NOW_MS)


@pytest.mark.parametrize("arrival", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
async def test_oldest_of_those_that_wait_is_granted_first(
    one: PostgresLedger, other: PostgresLedger, arrival: tuple[int, ...]
) -> None:
    held = a_claim("0", biz_time_ms=NOW_MS, lease_ms=LEASE_MS)
    token = await granted(one, held)
    sent: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        for number in arrival:
            claim = a_claim(str(number), biz_time_ms=NOW_MS + number, lease_ms=LEASE_MS)
            assert isinstance(await one.claim(claim, NOW_MS), LinkageBusy)
            tasks.create_task(deliver((one, other)[number % 2], claim, sent))
        assert await one.record(held.key, token, APPLIED, NOW_MS)
    assert sent == ["1", "2", "3"]


async def test_other_linkages_ids_without_order_and_older_requests_are_not_blocked(
    one: PostgresLedger, other: PostgresLedger
) -> None:
    held = a_claim("held", lease_ms=LEASE_MS)
    token = await granted(one, held)
    waits = a_claim("waits", biz_time_ms=NOW_MS + 2)
    assert isinstance(await one.claim(waits, NOW_MS), LinkageBusy)
    assert await one.record(held.key, token, APPLIED, NOW_MS)
    for claim in (
        a_claim("another linkage", linkage=b"M", biz_time_ms=NOW_MS + 3),
        a_bind("no linkage"),
        a_claim("older", biz_time_ms=NOW_MS + 1),
    ):
        assert isinstance(await other.claim(claim, NOW_MS), Granted)


# -- wake-ups


async def take_back(ledger: PostgresLedger, claim: Claim, _: int) -> None:
    claim_id = await ledger._database.value("SELECT claim FROM alipayhk_request WHERE state = 'sending'")
    assert await ledger._undo_claim(LostClaim(claim.key, claim.linkage, claim_id))


@pytest.mark.parametrize(
    "end",
    [
        lambda ledger, claim, token: ledger.record(claim.key, token, APPLIED, NOW_MS),
        lambda ledger, claim, token: ledger.record(claim.key, token, IN_DOUBT, NOW_MS),
        lambda ledger, claim, token: ledger.record(
            claim.key, token, replace(APPLIED, may_be_late=True), NOW_MS
        ),
        lambda ledger, claim, token: ledger.undo(claim.key, token, NOW_MS),
        take_back,
    ],
    ids=["applied", "in doubt", "late", "undone", "taken back"],
)
@pytest.mark.parametrize("kind", ["the request", "the linkage"])
async def test_end_of_a_request_wakes_those_that_wait_for_it(
    one: PostgresLedger, other: PostgresLedger, end: End, kind: str
) -> None:
    held = a_claim("held", lease_ms=LEASE_MS)
    waits = held if kind == "the request" else a_claim("waits", lease_ms=LEASE_MS)
    token = await granted(one, held)
    answer = await other.claim(waits, NOW_MS)
    assert isinstance(answer, InProgress if kind == "the request" else LinkageBusy)
    assert await wakes_up(other, answer, end(one, held, token)) < LONG_S / 2


async def test_decision_of_an_operator_wakes_those_that_wait(
    one: PostgresLedger, other: PostgresLedger
) -> None:
    """A call asks again while the lease of a lost gateway expires, and waits at that moment."""
    bind = a_bind(lease_ms=1_000)
    await granted(one, bind)
    answer = await other.claim(bind, NOW_MS)
    assert isinstance(answer, InProgress)
    await one._database.value("SELECT pg_sleep(1)")
    await one._database.value(
        "UPDATE alipayhk_waiting SET until_ms = alipayhk_clock_ms() + 60000 RETURNING 1"
    )
    resolve = one.resolve(bind.key, APPLIED, who="ann", why="asked", now_ms=NOW_MS)
    assert await wakes_up(other, answer, resolve) < LONG_S / 2


async def test_wake_ups_come_sooner_than_the_poll(one: PostgresLedger, other: PostgresLedger) -> None:
    waits_s = []
    for number in range(10):
        bind = a_bind(f"id-{number}", lease_ms=LEASE_MS)
        token = await granted(one, bind)
        answer = await other.claim(bind, NOW_MS)
        record = one.record(bind.key, token, APPLIED, NOW_MS)
        waits_s.append(await wakes_up(other, answer, record))
        assert isinstance(await other.claim(bind, NOW_MS), Known)
    assert min(waits_s) < POLL_S / 5


@pytest.mark.parametrize("name", ["claim", "look"])
async def test_notification_between_the_answer_and_the_wait_is_not_lost(
    one: PostgresLedger, other: PostgresLedger, name: str
) -> None:
    bind = a_bind(lease_ms=LEASE_MS)
    token = await granted(one, bind)
    before = wakeups(other).count
    await other.claim(bind, NOW_MS)
    answer = await getattr(other, name)(bind, NOW_MS)
    assert isinstance(answer, InProgress)
    assert await one.record(bind.key, token, APPLIED, NOW_MS)
    await heard(other, before)
    await asyncio.wait_for(other.wait(answer, LONG_S), LONG_S / 2)


async def test_nothing_is_sent_if_no_call_waits(one: PostgresLedger, other: PostgresLedger) -> None:
    await ended(one, a_claim("held"))
    token = await granted(one, a_bind("waited for", lease_ms=LEASE_MS))
    before = wakeups(other).count
    await other.claim(a_bind("waited for"), NOW_MS)
    await one.record(a_bind("waited for").key, token, APPLIED, NOW_MS)
    await heard(other, before)
    assert wakeups(other).count == before + 1


async def test_wait_ends_after_its_time_and_leaves_nothing(
    one: PostgresLedger, other: PostgresLedger
) -> None:
    await granted(one, a_bind(lease_ms=LEASE_MS))
    answer = await other.claim(a_bind(), NOW_MS)
    assert isinstance(answer, InProgress)
    began_s = time.monotonic()
    await other.wait(answer, 0.05)
    assert time.monotonic() - began_s >= 0.05
    waiting = asyncio.create_task(other.wait(answer, LONG_S))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not wakeups(other)._waiting


# -- lost notifications


def kill_listeners(on_server: OnServer) -> None:
    on_server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{on_server.database}' AND query LIKE 'LISTEN%'"
    )


async def test_lost_connection_for_notifications_costs_the_poll_only(
    on_server: OnServer, one: PostgresLedger, other: PostgresLedger
) -> None:
    bind = a_bind(lease_ms=LEASE_MS)
    token = await granted(one, bind)
    answer = await other.claim(bind, NOW_MS)
    assert isinstance(answer, InProgress)
    kill_listeners(on_server)
    assert await one.record(bind.key, token, APPLIED, NOW_MS)
    await other.wait(answer, POLL_S)
    assert await other.claim(bind, NOW_MS) == Known(APPLIED)


async def test_listening_again_wakes_every_call_and_hears_later_notifications(
    on_server: OnServer, one: PostgresLedger, other: PostgresLedger
) -> None:
    bind = a_bind(lease_ms=LEASE_MS)
    token = await granted(one, bind)
    answer = await other.claim(bind, NOW_MS)
    began_s = time.monotonic()
    kill_listeners(on_server)
    assert isinstance(answer, InProgress)
    await other.wait(answer, LONG_S)
    assert time.monotonic() - began_s < LONG_S / 2
    answer = await other.claim(bind, NOW_MS)
    record = one.record(bind.key, token, APPLIED, NOW_MS)
    assert await wakes_up(other, answer, record) < LONG_S / 2


async def test_notifications_of_others_are_ignored(on_server: OnServer, other: PostgresLedger) -> None:
    before = wakeups(other).count
    on_server.sql("NOTIFY alipayhk_ledger, 'nonsense'")
    await heard(other, before)
    assert isinstance(await other.claim(a_bind(), NOW_MS), Granted)


def test_notifications_that_are_remembered_are_limited() -> None:
    wakeups = Wakeups()
    for number in range(REMEMBERED * 2):
        wakeups.heard(str(number))
    assert len(wakeups._heard_at) == REMEMBERED
    newest, forgotten = Place(str(REMEMBERED * 2 - 1), 0), Place("0", 0)
    asyncio.run(asyncio.wait_for(wakeups.wait(newest, LONG_S), LONG_S / 2))
    began_s = time.monotonic()
    asyncio.run(wakeups.wait(forgotten, 0.05))
    assert time.monotonic() - began_s >= 0.05
