"""A PostgreSQL server that stops, freezes or loses answers: nothing is granted twice, and it recovers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, Final

import pytest

from service.ledger import Claim, Granted, Known, Ledger, LedgerUnavailable, State
from service.ledger.errors import LedgerBusy
from service.ledger.lease import LEASE_MAX_MS
from service.ledger.postgres import lost_claims
from service.ledger.postgres.database import connected
from service.ledger.postgres.ledger import PostgresLedger
from service.ledger.postgres.lost_claims import LostClaim, LostClaims
from service.ledger.vault import make_key_file
from tests.ledger.levels import APPLIED, IN_DOUBT, NOW_MS, a_bind, a_claim, ended, granted, row_of, the_row
from tests.ledger.on_server import PATIENT_S, OnServer, eventually, impatient
from tests.ledger.wire import Wire
from tests.postgres.server import Postgres

TIMEOUT_S: Final = 1.0
"""LEDGER_TIMEOUT_S of these ledgers during a fault."""
SLACK_S: Final = 10.0
"""How much later than that an operation may end on a busy machine."""
LEASE_MS: Final = LEASE_MAX_MS
"""Longer than a test, so that no lease expires."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnServer]:
    """Return a ledger on a server of this module; each test uses request ids of its own."""
    with Postgres.start(fsync=False) as server:
        server.create_database("ledger")
        key = tmp_path_factory.mktemp("key") / "ledger.key"
        make_key_file(key, random_bytes=os.urandom)
        yield OnServer(server, "ledger", key)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Return a request id that no other test uses."""
    return str(request.node.name)


@pytest.fixture
async def ledger(kept: OnServer) -> AsyncIterator[PostgresLedger]:
    ledger = kept.open()
    yield ledger
    await ledger.close()


@pytest.fixture
async def wire(kept: OnServer) -> AsyncIterator[Wire]:
    """Return a proxy in front of the server."""
    async with Wire(kept.server.port) as wire:
        yield wire


@pytest.fixture
async def behind(kept: OnServer, wire: Wire) -> AsyncIterator[PostgresLedger]:
    """Return a ledger that connects through the proxy."""
    ledger = await opened_behind(kept, wire)
    yield ledger
    wire.release()
    await ledger.close()


async def opened_behind(kept: OnServer, wire: Wire) -> PostgresLedger:
    """Open a ledger with one connection, so that the proxy knows it, and one that listens."""
    url = kept.url.replace(str(kept.server.port), str(wire.port))
    ledger = await asyncio.to_thread(lambda: kept.open(url, pool_max=1))  # the proxy runs in this loop
    await ledger.claim(a_bind("first"), NOW_MS)
    return ledger


async def fails(operation: Awaitable[Any]) -> str:
    """Return the text of the error of an operation, which comes in time."""
    began_s = time.monotonic()
    with pytest.raises(LedgerUnavailable) as failed:
        await operation
    assert time.monotonic() - began_s < TIMEOUT_S + SLACK_S
    return str(failed.value)


async def is_granted(ledger: PostgresLedger, claim: Claim) -> Granted:
    """Claim a request until it is granted."""
    answer = await eventually(lambda: ledger.claim(claim, NOW_MS), lambda said: isinstance(said, Granted))
    assert isinstance(answer, Granted)
    return answer


def bind(name: str, **changes: Any) -> Claim:
    return a_bind(name, lease_ms=LEASE_MS, **changes)


def lost(claim_id: bytes) -> LostClaim:
    return LostClaim(a_bind("lost").key, None, claim_id)


# -- stopped, killed, frozen


async def every_row(ledger: Ledger) -> None:
    async for _ in ledger.rows():
        pass


@pytest.mark.parametrize("stop", [Postgres.stop, Postgres.kill], ids=["stopped", "killed"])
async def test_ledger_recovers_when_its_server_starts_again(
    kept: OnServer, ledger: PostgresLedger, name: str, stop: Callable[[Postgres], None]
) -> None:
    held, done = bind(name), bind(f"{name} done")
    await ended(ledger, done)
    token = await granted(ledger, held)
    impatient(ledger, TIMEOUT_S)
    stop(kept.server)
    for operation in (ledger.claim(bind(f"{name} new"), NOW_MS), ledger.look(done, NOW_MS)):
        assert "the ledger's database cannot be used: " in await fails(operation)
    await fails(ledger.record(held.key, token, APPLIED, NOW_MS))
    kept.server.start_again()
    assert await eventually(lambda: ledger.record(held.key, token, APPLIED, NOW_MS))
    assert await eventually(lambda: ledger.claim(held, NOW_MS)) == Known(APPLIED)
    assert not (await is_granted(ledger, bind(f"{name} new"))).was_in_doubt


async def test_every_operation_ends_in_time_on_a_frozen_server(
    kept: OnServer, ledger: PostgresLedger, name: str
) -> None:
    claim = bind(name)
    token = await granted(ledger, claim)
    impatient(ledger, TIMEOUT_S)
    kept.server.freeze()
    try:
        said = await asyncio.gather(
            fails(ledger.claim(bind(f"{name} new"), NOW_MS)),
            fails(ledger.look(claim, NOW_MS)),
            fails(ledger.renew(claim.key, token, LEASE_MS, NOW_MS)),
            fails(ledger.extend(claim.key, token, LEASE_MS, NOW_MS)),
            fails(ledger.record(claim.key, token, IN_DOUBT, NOW_MS)),
            fails(ledger.undo(claim.key, token, NOW_MS)),
            fails(ledger.find(name)),
            fails(ledger.resolve(claim.key, APPLIED, who="ann", why="asked", now_ms=NOW_MS)),
            fails(every_row(ledger)),
            fails(ledger.drop(before_ms=NOW_MS, now_ms=NOW_MS)),
        )
        assert set(said) == {"the ledger's database cannot be used: TimeoutError"}
        await fails(ledger.look(claim, NOW_MS))  # with a new connection
    finally:
        kept.server.thaw()
    assert not (await is_granted(ledger, bind(f"{name} new"))).was_in_doubt
    await eventually(kept.connections, lambda open_: open_ <= 5)


async def test_claim_that_a_frozen_server_executes_later_is_taken_back(
    kept: OnServer, ledger: PostgresLedger, name: str
) -> None:
    """A BindAccount that was not sent must not be in doubt."""
    await ended(ledger, bind(f"{name} first"))
    impatient(ledger, TIMEOUT_S)
    claims = [bind(f"{name} {number}") for number in range(8)]
    kept.server.freeze()
    await asyncio.gather(*(fails(ledger.claim(claim, NOW_MS)) for claim in claims))
    kept.server.thaw()
    await nothing_is_lost(ledger)
    assert [await row_of(ledger, claim) for claim in claims] == [None] * 8
    for claim in claims:
        assert not (await is_granted(ledger, claim)).was_in_doubt


async def nothing_is_lost(ledger: PostgresLedger) -> None:
    """Wait until every lost claim is taken back; the fault is over then, so give the ledger time again."""

    async def left() -> int:
        return len(ledger._lost._claims)

    await eventually(left, lambda left: left == 0)
    impatient(ledger, PATIENT_S)


async def test_grants_survive_the_crash_of_the_server_and_no_id_is_granted_twice(
    kept: OnServer, name: str
) -> None:
    gateways = [impatient(kept.open(), TIMEOUT_S) for _ in range(2)]
    claims = [bind(f"{name} {number}") for number in range(60)]
    grants: list[tuple[Claim, int]] = []
    are_some = asyncio.Event()

    async def deliver(ledger: PostgresLedger, claim: Claim) -> None:
        async def ask() -> object:
            answer = await ledger.claim(claim, NOW_MS)
            if isinstance(answer, Granted):
                grants.append((claim, answer.token))
                are_some.set()
            return answer

        await eventually(ask, lambda answer: isinstance(answer, Granted) or claim in dict(grants))

    delivering = [asyncio.create_task(deliver(each, claim)) for claim in claims for each in gateways]
    await are_some.wait()
    await asyncio.to_thread(kept.server.kill)
    await asyncio.to_thread(kept.server.start_again)
    await asyncio.gather(*delivering)
    assert len(grants) == len(claims)
    rows = {claim: await eventually(partial(the_row, gateways[0], claim)) for claim in claims}
    assert {claim: row.token for claim, row in rows.items()} == dict(grants)
    assert {(row.state, row.attempts) for row in rows.values()} == {(State.SENDING, 1)}
    for ledger in gateways:
        await ledger.close()


@pytest.mark.parametrize("is_claiming", [False, True])
async def test_ledger_closes_in_time_on_a_frozen_server(
    kept: OnServer, name: str, is_claiming: bool
) -> None:
    ledger = kept.open()
    await ended(ledger, bind(f"{name} first"))
    impatient(ledger, TIMEOUT_S)
    kept.server.freeze()
    try:
        claims = [bind(f"{name} {number}") for number in range(20 * is_claiming)]
        claiming = [asyncio.create_task(ledger.claim(claim, NOW_MS)) for claim in claims]
        await asyncio.sleep(0.05)
        began_s = time.monotonic()
        await ledger.close()
        assert time.monotonic() - began_s < 3 * TIMEOUT_S + SLACK_S
        answers = await asyncio.gather(*claiming, return_exceptions=True)
        assert {type(answer) for answer in answers} <= {LedgerUnavailable}
    finally:
        kept.server.thaw()


async def test_ledger_whose_tables_are_gone_says_so(on_server: OnServer) -> None:
    ledger = on_server.open()
    await granted(ledger, a_bind())
    on_server.sql("DROP TABLE alipayhk_request CASCADE")
    said = await fails(ledger.claim(a_bind("id-2"), NOW_MS))
    assert said == "the ledger's database cannot be used: UndefinedTableError (42P01)"
    await ledger.close()


# -- answers that are lost


@pytest.mark.parametrize("loss", ["held", "cut"])
async def test_claim_whose_answer_was_lost_is_taken_back(
    behind: PostgresLedger, wire: Wire, name: str, loss: str
) -> None:
    impatient(behind, TIMEOUT_S)
    wire.hold_answers()
    claiming = asyncio.create_task(fails(behind.claim(bind(name), NOW_MS)))
    if loss == "cut":
        await asyncio.sleep(0.1)
        wire.cut()
    await claiming
    await nothing_is_lost(behind)
    assert await row_of(behind, bind(name)) is None
    assert not (await is_granted(behind, bind(name))).was_in_doubt


async def test_lost_claim_of_a_request_in_doubt_leaves_it_in_doubt(
    behind: PostgresLedger, wire: Wire, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a claim takes two round trips. The second one writes."""
    claim = a_claim(name, linkage=name.encode(), lease_ms=LEASE_MS)
    await ended(behind, claim, IN_DOUBT)
    fetch = behind._database.fetch

    async def fetch_once(*words: Any) -> Any:
        found = await fetch(*words)
        impatient(behind, TIMEOUT_S)
        wire.hold_answers()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(behind._database, "fetch", fetch_once)
        await fails(behind.claim(claim, NOW_MS))
    await nothing_is_lost(behind)
    row = await eventually(lambda: the_row(behind, claim))
    assert (row.state, row.attempts, row.was_in_doubt) == (State.IN_DOUBT, 1, True)


async def test_claim_that_arrives_after_it_was_taken_back_is_not_granted(
    kept: OnServer, behind: PostgresLedger, wire: Wire, name: str
) -> None:
    """The network delivers what was sent on a closed connection when it works again."""
    claim = bind(name)
    impatient(behind, TIMEOUT_S)
    wire.hold_requests()
    await fails(behind.claim(claim, NOW_MS))
    await nothing_is_lost(behind)
    assert kept.sql("SELECT count(*) FROM alipayhk_undone") >= "1"
    wire.release()
    await eventually(kept.connections, lambda open_: open_ <= 3)
    assert await eventually(lambda: row_of(behind, claim), lambda row: row is None) is None
    assert not (await is_granted(behind, claim)).was_in_doubt


async def test_marks_of_claims_that_were_taken_back_are_removed_after_an_hour(
    ledger: PostgresLedger, kept: OnServer, name: str
) -> None:
    await ledger._undo_claim(lost(b"now"))
    kept.sql("INSERT INTO alipayhk_undone VALUES ('old', alipayhk_clock_ms() - 3700000)")
    await ledger.drop(before_ms=0, now_ms=NOW_MS)
    assert (
        kept.sql("SELECT encode(claim, 'escape') FROM alipayhk_undone WHERE claim IN ('now', 'old')")
        == "now"
    )


@pytest.mark.parametrize("moment", ["while it runs", "while it waits for a connection"])
async def test_claim_that_is_cancelled_is_taken_back(
    behind: PostgresLedger, wire: Wire, name: str, moment: str
) -> None:
    claims = [bind(f"{name} {number}") for number in range(1 if moment == "while it runs" else 12)]
    wire.hold_answers()
    claiming = [asyncio.create_task(behind.claim(claim, NOW_MS)) for claim in claims]
    await asyncio.sleep(0.05)
    for task in claiming:
        task.cancel()
    ends = await asyncio.gather(*claiming, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError}
    wire.release()
    await eventually(lambda: everything_ended(behind))
    await nothing_is_lost(behind)
    assert [await row_of(behind, claim) for claim in claims] == [None] * len(claims)


async def everything_ended(ledger: PostgresLedger) -> None:
    if ledger._writing:
        raise LedgerUnavailable("operations are in progress")


async def test_outcome_is_recorded_although_its_caller_was_cancelled(
    behind: PostgresLedger, wire: Wire, name: str
) -> None:
    claim = bind(name)
    token = (await is_granted(behind, claim)).token
    wire.hold_answers()
    recording = asyncio.create_task(behind.record(claim.key, token, APPLIED, NOW_MS))
    await asyncio.sleep(0.05)
    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording
    wire.release()
    assert await eventually(lambda: behind.look(claim, NOW_MS), lambda said: said == Known(APPLIED))


async def test_closing_takes_lost_claims_back(kept: OnServer, wire: Wire, name: str) -> None:
    ledger = impatient(await opened_behind(kept, wire), TIMEOUT_S)
    wire.hold_answers()
    ledger._lost.add(lost(b"so that the task sleeps"))
    await fails(ledger.claim(bind(name), NOW_MS))
    impatient(ledger, 60.0)
    assert await ledger.close() == []
    assert kept.sql(f"SELECT count(*) FROM alipayhk_request WHERE request_id = '{name}'") == "0"


async def test_closing_takes_back_what_it_can_and_names_the_rest() -> None:
    async def take_back(lost: LostClaim) -> None:
        if lost.claim_id == b"locked":
            raise LedgerBusy("its linkage is locked")

    claims = LostClaims(take_back)
    for claim_id in (b"locked", b"free"):
        claims.add(lost(claim_id))
    assert await claims.close() == [lost(b"locked").key]


async def test_lost_claims_that_are_kept_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_claims, "MAX", 3)
    taken: list[bytes] = []

    async def take_back(lost: LostClaim) -> None:
        taken.append(lost.claim_id)

    claims = LostClaims(take_back)
    for number in range(5):
        claims.add(lost(b"%d" % number))
    await claims.close()
    assert taken == [b"0", b"1", b"2"]


# -- locks


async def test_linkage_that_is_locked_for_long_is_reported_as_busy(
    kept: OnServer, ledger: PostgresLedger, name: str
) -> None:
    claim = a_claim(name, linkage=name.encode())
    await ended(ledger, claim)
    async with connected(kept.url, "the test's database", PATIENT_S) as other, other.transaction():
        await other.fetch("SELECT alipayhk_lock($1, '', 'SyncLinkage', 'client-1')", claim.linkage)
        with pytest.raises(LedgerBusy, match=r"LockNotAvailableError \(55P03\)"):
            await ledger.claim(replace(claim, key=a_claim("another").key), NOW_MS)
        assert await ledger.look(claim, NOW_MS) == Known(APPLIED)
    newer = replace(claim, key=a_claim("newer").key, biz_time_ms=NOW_MS + 1)
    assert isinstance(await ledger.claim(newer, NOW_MS), Granted)


# -- a server that may only be read


async def test_connections_that_became_read_only_are_given_up(
    kept: OnServer, ledger: PostgresLedger, name: str
) -> None:
    await asyncio.gather(*(granted(ledger, bind(f"{name} {number}")) for number in range(8)))
    kept.server.execute("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")
    try:
        numbers = count()
        await eventually(
            lambda: refused(ledger.claim(bind(f"{name} before {next(numbers)}"), NOW_MS)),
            lambda said: said.endswith("TargetServerAttributeNotMatched"),
        )
    finally:
        kept.server.execute(
            "SET default_transaction_read_only = off;"
            "ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()"
        )
    assert not (await is_granted(ledger, bind(f"{name} new"))).was_in_doubt


async def refused(operation: Awaitable[Any]) -> str:
    """Return the text of an operation's error, or an empty text if it succeeds."""
    try:
        await operation
    except LedgerUnavailable as error:
        return str(error)
    return ""
