"""Two gateways on one PostgreSQL ledger, each with its own connections: of two that race, one wins."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from service.ledger import (
    Claim,
    ClaimRejected,
    Granted,
    InProgress,
    Known,
    LinkageBusy,
    Reused,
    Row,
    State,
)
from service.ledger.postgres import ledger as postgres_ledger
from service.ledger.postgres import statements
from service.ledger.postgres.ledger import PostgresLedger
from service.ledger.postgres.lost_claims import LostClaim
from service.ledger.vault import make_key_file
from tests.ledger.levels import APPLIED, IN_DOUBT, NOW_MS, a_bind, a_claim, ended, granted, the_row
from tests.ledger.on_server import OnServer, eventually
from tests.postgres.server import Postgres

ROUNDS = 100
FEWER = 30


class Pair(NamedTuple):
    """Two gateways; the first one of `in_turn` is asked first."""

    one: PostgresLedger
    other: PostgresLedger

    def in_turn(self, number: int) -> tuple[PostgresLedger, PostgresLedger]:
        return (self.one, self.other) if number % 2 else (self.other, self.one)


@pytest.fixture(scope="module")
def shared(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnServer]:
    """Return the database of all tests here: each of them uses request ids and linkages of its own."""
    postgres.create_database("at_once")
    key = tmp_path_factory.mktemp("key") / "ledger.key"
    make_key_file(key, random_bytes=os.urandom)
    yield OnServer(postgres, "at_once", key)
    postgres.execute("DROP DATABASE at_once WITH (FORCE)")


@pytest.fixture
async def pair(shared: OnServer) -> AsyncIterator[Pair]:
    pair = Pair(shared.open(), shared.open())
    yield pair
    for ledger in pair:
        await ledger.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Return a name that no other test uses."""
    return str(request.node.name)


async def both(number: int, one: Awaitable[Any], other: Awaitable[Any]) -> tuple[Any, Any]:
    """Run two operations concurrently; which one starts first depends on the number."""
    if number % 2:
        return tuple(await asyncio.gather(one, other))
    answers = await asyncio.gather(other, one)
    return answers[1], answers[0]


async def raced(*operations: Awaitable[object]) -> list[str]:
    """Run operations concurrently; return the names of their answers' classes, sorted."""
    return sorted(type(answer).__name__ for answer in await asyncio.gather(*operations))


def sync(name: str, number: int, **changes: object) -> Claim:
    """Return a SyncLinkage of a linkage of its own."""
    return a_claim(f"{name}-{number}", linkage=f"{name}-{number}".encode(), **changes)


# -- claims


@pytest.mark.parametrize("kind", [a_bind, a_claim])
async def test_of_two_claims_of_one_id_one_is_granted(
    pair: Pair, name: str, kind: Callable[[str], Claim]
) -> None:
    for number in range(ROUNDS):
        claim = kind(f"{name}-{number}")
        if claim.linkage:
            claim = replace(claim, linkage=claim.fingerprint)
        first, second = pair.in_turn(number)
        answers = await raced(first.claim(claim, NOW_MS), second.claim(claim, NOW_MS))
        assert answers == ["Granted", "InProgress"]
        assert (await the_row(first, claim)).attempts == 1


async def test_of_many_claims_of_one_id_one_is_granted(pair: Pair, name: str) -> None:
    for number in range(10):
        claim = sync(name, number)
        answers = Counter(await raced(*(ledger.claim(claim, NOW_MS) for ledger in pair * 10)))
        assert answers == {"Granted": 1, "InProgress": 19}


async def test_of_two_claims_of_one_linkage_one_is_granted(pair: Pair, name: str) -> None:
    for number in range(ROUNDS):
        first, second = pair.in_turn(number)
        other = replace(sync(name, number), key=a_claim(f"{name}-other-{number}").key)
        answers = await raced(first.claim(sync(name, number), NOW_MS), second.claim(other, NOW_MS))
        assert answers == ["Granted", "LinkageBusy"]


@pytest.mark.parametrize("linkage", ["the same", "another", "none"])
async def test_of_two_contents_under_one_id_one_is_granted(pair: Pair, name: str, linkage: str) -> None:
    """With another linkage, the two transactions have different locks."""
    for number in range(ROUNDS):
        first, second = pair.in_turn(number)
        claim = sync(name, number)
        linkages = {"the same": claim.linkage, "another": b"another " + claim.fingerprint, "none": None}
        other = replace(claim, fingerprint=b"other", linkage=linkages[linkage])
        answers = await raced(first.claim(claim, NOW_MS), second.claim(other, NOW_MS))
        assert answers == ["Granted", "Reused"]
        assert len(await first.find(claim.key.request_id)) == 1


async def test_of_two_claims_of_an_id_in_doubt_one_is_granted(pair: Pair, name: str) -> None:
    for number in range(FEWER):
        claim = sync(name, number)
        first, second = pair.in_turn(number)
        await ended(first, claim, IN_DOUBT)
        answers = await asyncio.gather(first.claim(claim, NOW_MS), second.claim(claim, NOW_MS))
        (won,) = [answer for answer in answers if isinstance(answer, Granted)]
        assert won.was_in_doubt
        assert [type(answer) for answer in answers if answer is not won] == [InProgress]
        assert (await the_row(first, claim)).attempts == 2


async def test_ids_and_linkages_of_others_do_not_wait(pair: Pair, name: str) -> None:
    claims = [sync(name, number) for number in range(FEWER)]
    answers = await raced(
        *(pair.in_turn(number)[0].claim(claim, NOW_MS) for number, claim in enumerate(claims))
    )
    assert answers == ["Granted"] * FEWER


# -- an expired lease


@pytest.mark.parametrize("operation", ["extend", "renew"])
async def test_holder_with_an_expired_lease_or_another_id_of_the_linkage_continues(
    pair: Pair, name: str, operation: str
) -> None:
    """Never both: the other request would overtake the holder's."""
    seen = Counter[str]()
    for number in range(FEWER):
        first, second = pair.in_turn(number)
        held = sync(name, number, lease_ms=0)
        other = replace(sync(name, number), key=a_claim(f"{name}-other-{number}").key)
        token = await granted(first, held)
        continued, answer = await both(
            number, getattr(first, operation)(held.key, token, 5_000, NOW_MS), second.claim(other, NOW_MS)
        )
        assert isinstance(answer, LinkageBusy if continued else Granted)
        seen[type(answer).__name__] += 1
        assert [row.state for row in await first.find(held.key.request_id)] == [State.SENDING]
    assert len(seen) == 2, "The race was never close."


@pytest.mark.parametrize("operation", ["extend", "renew"])
async def test_holder_with_an_expired_lease_or_another_claim_of_its_id_continues(
    pair: Pair, name: str, operation: str
) -> None:
    for number in range(FEWER):
        first, second = pair.in_turn(number)
        claim = sync(name, number, lease_ms=0)
        token = await granted(first, claim)
        continued, answer = await both(
            number, getattr(first, operation)(claim.key, token, 5_000, NOW_MS), second.claim(claim, NOW_MS)
        )
        assert isinstance(answer, InProgress if continued else Granted)


# -- outcomes


async def test_claim_during_the_record_of_an_outcome_waits_or_gets_it(pair: Pair, name: str) -> None:
    for number in range(FEWER):
        first, second = pair.in_turn(number)
        claim = sync(name, number)
        token = await granted(first, claim)
        recorded, answer = await both(
            number, first.record(claim.key, token, APPLIED, NOW_MS), second.claim(claim, NOW_MS)
        )
        assert recorded
        assert isinstance(answer, InProgress) or answer == Known(APPLIED)


async def test_older_request_during_the_record_of_a_newer_one_waits_or_is_stale(
    pair: Pair, name: str
) -> None:
    for number in range(FEWER):
        first, second = pair.in_turn(number)
        newer = sync(name, number, biz_time_ms=NOW_MS + 1)
        older = replace(sync(name, number), key=a_claim(f"{name}-older-{number}").key)
        token = await granted(first, newer)
        _, answer = await both(
            number, first.record(newer.key, token, APPLIED, NOW_MS), second.claim(older, NOW_MS)
        )
        assert isinstance(answer, LinkageBusy) or answer is ClaimRejected.STALE


async def test_late_outcome_and_a_new_claim_do_not_both_win(pair: Pair, name: str) -> None:
    for number in range(FEWER):
        first, second = pair.in_turn(number)
        claim = sync(name, number, lease_ms=0)
        token = await granted(first, claim)
        recorded, answer = await both(
            number, first.record(claim.key, token, APPLIED, NOW_MS), second.claim(claim, NOW_MS)
        )
        assert answer == Known(APPLIED) if recorded else isinstance(answer, Granted)


async def test_outcome_and_the_decision_of_an_operator_do_not_both_win(pair: Pair, name: str) -> None:
    seen = Counter[str]()
    for number in range(FEWER):
        first, second = pair.in_turn(number)
        claim = replace(a_bind(f"{name}-{number}"), lease_ms=0)
        token = await granted(first, claim)
        decision = replace(APPLIED, state=State.REJECTED)
        recorded, resolved = await both(
            number,
            first.record(claim.key, token, APPLIED, NOW_MS),
            second.resolve(claim.key, decision, who="ann", why="asked", now_ms=NOW_MS),
        )
        assert recorded != resolved
        row = await the_row(first, claim)
        assert row.state is (State.APPLIED if recorded else State.REJECTED)
        seen[row.state] += 1
    assert len(seen) == 2, "The race was never close."


async def test_of_two_decisions_of_operators_one_is_recorded(pair: Pair, name: str) -> None:
    for number in range(20):
        claim = a_bind(f"{name}-{number}")
        await ended(pair.one, claim, IN_DOUBT)
        done = await asyncio.gather(
            *(
                ledger.resolve(claim.key, APPLIED, who=who, why="asked", now_ms=NOW_MS)
                for ledger, who in zip(pair, ("ann", "bob"), strict=True)
            )
        )
        assert sorted(done) == [False, True]
        row = await the_row(pair.one, claim)
        assert row.resolved is not None
        assert row.resolved.who == ("ann", "bob")[done.index(True)]


async def test_undone_claim_leaves_its_id_to_another_content(pair: Pair, name: str) -> None:
    for number in range(FEWER):
        first, second = pair.in_turn(number)
        claim = sync(name, number)
        other = replace(claim, fingerprint=b"other", linkage=f"{name}-{number}-other".encode())
        token = await granted(first, claim)
        undone, answer = await both(
            number, first.undo(claim.key, token, NOW_MS), second.claim(other, NOW_MS)
        )
        assert undone
        assert isinstance(answer, Granted | Reused)
        assert len(await first.find(claim.key.request_id)) == isinstance(answer, Granted)


async def test_claim_that_is_taken_back_while_it_runs_leaves_no_row(pair: Pair, name: str) -> None:
    for number in range(ROUNDS):
        first, second = pair.in_turn(number)
        claim, claim_id = sync(name, number), b"%d" % number + name.encode()
        claiming = asyncio.create_task(first._claim(claim, claim_id, NOW_MS))
        await both(
            number,
            asyncio.wait([claiming]),
            second._undo_claim(LostClaim(claim.key, claim.linkage, claim_id)),
        )
        assert await first.find(claim.key.request_id) == []
        assert claiming.exception() is None or "P0001" in str(claiming.exception())


# -- drop


async def test_two_that_drop_at_once_drop_each_row_once(on_server: OnServer) -> None:
    pair = Pair(on_server.open(), on_server.open())
    await asyncio.gather(*(ended(pair.one, a_bind(f"id-{number}")) for number in range(450)))
    await granted(pair.one, a_bind("held"))
    after_ms = NOW_MS + 1
    await pair.one.drop(before_ms=0, now_ms=after_ms - 1)
    dropped = await asyncio.gather(
        *(ledger.drop(before_ms=after_ms, now_ms=after_ms) for ledger in (*pair, *pair))
    )
    assert sum(dropped) == 450
    assert [row.key.request_id async for row in pair.one.rows()] == ["held"]
    for ledger in pair:
        await ledger.close()


async def test_claims_during_a_drop_are_replayed_or_new(on_server: OnServer) -> None:
    pair = Pair(on_server.open(), on_server.open())
    claims = [a_bind(f"id-{number}") for number in range(100)]
    await asyncio.gather(*(ended(pair.one, claim) for claim in claims))
    await pair.one.drop(before_ms=0, now_ms=NOW_MS)
    dropped, *answers = await asyncio.gather(
        pair.one.drop(before_ms=NOW_MS + 1, now_ms=NOW_MS + 1),
        *(pair.other.claim(claim, NOW_MS + 1) for claim in claims),
    )
    assert dropped == 100
    assert {type(answer) for answer in answers} <= {Known, Granted}
    assert len([row async for row in pair.one.rows()]) == sum(isinstance(each, Granted) for each in answers)
    for ledger in pair:
        await ledger.close()


# -- export


async def exported(ledger: PostgresLedger, seen: dict[str, Row], after: int) -> int:
    """Continue an export; return its last change."""
    async for row in ledger.rows(after=after):
        assert row.change > after
        after = row.change
        seen[row.key.request_id] = row
    return after


async def test_exports_that_continue_miss_no_change_of_concurrent_writers(on_server: OnServer) -> None:
    """Numbers are given before the commit, so a transaction with a lower number can commit later."""
    pair = Pair(on_server.open(pool_max=6), on_server.open(pool_max=6))
    reader = on_server.open()
    seen: dict[str, Row] = {}
    is_writing, after, exports = True, 0, 0

    async def write(writer: int) -> None:
        ledger = pair[writer % 2]
        for number in range(30):
            late = replace(APPLIED, may_be_late=number % 2 == 0)
            await ended(ledger, sync(f"{writer}", number), late)

    async def export() -> None:
        nonlocal after, exports
        while is_writing:
            after = await exported(reader, seen, after)
            exports += 1

    exporting = asyncio.create_task(export())
    await asyncio.gather(*map(write, range(10)))
    is_writing = False
    await exporting
    assert exports > 5
    await exported(reader, seen, after)
    written = {row.key.request_id: row async for row in reader.rows()}
    assert len(written) == 300
    assert {key: row.change for key, row in seen.items()} == {
        key: row.change for key, row in written.items()
    }
    for ledger in (*pair, reader):
        await ledger.close()


async def test_export_since_a_time_includes_what_is_being_committed(on_server: OnServer) -> None:
    """Its first change may not be visible yet when a later one is."""
    ledger = on_server.open()
    for number in range(30):
        claims = [a_bind(f"{number}-{each}") for each in range(4)]
        now_ms = NOW_MS + number
        writing = [asyncio.create_task(ledger.claim(claim, now_ms)) for claim in claims]
        await asyncio.sleep(0.001 * (number % 4))
        first = [row.change async for row in ledger.rows(since_ms=now_ms)]
        await asyncio.gather(*writing)
        rest = [row.change async for row in ledger.rows(after=max(first))] if first else []
        every = [row.change async for row in ledger.rows(since_ms=now_ms)]
        assert first + rest == every if first else len(every) == 4
    await ledger.close()


@pytest.mark.parametrize("since_ms", [0, NOW_MS])
async def test_listing_has_a_row_that_changes_before_its_page_is_read(
    on_server: OnServer, monkeypatch: pytest.MonkeyPatch, since_ms: int
) -> None:
    ledger = on_server.open()
    bind = a_bind()
    token = await granted(ledger, bind)
    value = ledger._database.value

    async def value_before_a_change(statement: str, *parameters: object) -> Any:
        last = await value(statement, *parameters)
        if statement == statements.LAST_CHANGE:
            await ledger.record(bind.key, token, APPLIED, NOW_MS)
        return last

    monkeypatch.setattr(ledger._database, "value", value_before_a_change)
    assert [row.state async for row in ledger.rows(since_ms=since_ms)] == [State.APPLIED]
    await ledger.close()


async def test_long_listing_ends_with_what_changed_while_it_was_read(
    on_server: OnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_ledger, "PAGE_ROWS", 3)
    ledger = on_server.open()
    binds = [a_bind(f"id-{number}") for number in range(7)]
    tokens = [await granted(ledger, bind) for bind in binds]
    seen: list[tuple[str, State]] = []
    async for row in ledger.rows():
        if not seen:
            assert await ledger.record(binds[0].key, tokens[0], APPLIED, NOW_MS)
        seen.append((row.key.request_id, row.state))
    assert len(seen) == 8
    assert seen[-1] == ("id-0", State.APPLIED)
    await ledger.close()


# -- connections


async def test_gateway_has_as_many_connections_as_the_pool_and_one_that_listens(
    on_server: OnServer,
) -> None:
    ledger = on_server.open(pool_max=4)
    counts: list[int] = []

    async def watch() -> None:
        while True:
            counts.append(await on_server.connections())

    watching = asyncio.create_task(watch())
    answers = await raced(*(ledger.claim(a_bind(f"id-{number}"), NOW_MS) for number in range(100)))
    counts.append(await on_server.connections())
    watching.cancel()
    assert answers == ["Granted"] * 100
    assert max(counts) == 5
    await ledger.close()
    await eventually(on_server.connections, lambda count: count == 0)
