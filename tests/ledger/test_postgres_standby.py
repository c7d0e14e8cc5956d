"""PostgreSQL with a standby: grants are on both servers, and gateways follow a failover."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple

import pytest

from service.ledger import Claim, Granted, Known, LedgerUnavailable, State
from service.ledger.lease import LEASE_MAX_MS
from service.ledger.opening import fault_of
from service.ledger.postgres.ledger import PostgresLedger
from service.ledger.vault import make_key_file
from tests.ledger.levels import APPLIED, NOW_MS, a_bind, ended, granted
from tests.ledger.on_server import OnServer, eventually, impatient
from tests.postgres.server import Postgres

TIMEOUT_S: Final = 1.0
SLACK_S: Final = 10.0
LATE: Final = replace(APPLIED, may_be_late=True)


class Replicated(NamedTuple):
    """A ledger on a primary, and its synchronous standby."""

    kept: OnServer
    standby: Postgres

    @property
    def url(self) -> str:
        return self.kept.server.url(self.kept.database, self.standby)

    @contextmanager
    def without_standby(self) -> Iterator[None]:
        """Freeze the standby in this block."""
        self.standby.freeze()
        try:
            yield
        finally:
            self.standby.thaw()


def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    with Postgres.start(fsync=False) as primary:
        primary.create_database("ledger")
        key = tmp_path_factory.mktemp("key") / "ledger.key"
        make_key_file(key, random_bytes=os.urandom)
        yield Replicated(OnServer(primary, "ledger", key), primary.standby())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    """Return the servers of the tests without a failover; each uses request ids of its own."""
    yield from replicated(tmp_path_factory)


@pytest.fixture
def own_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    """Return servers for one failover."""
    yield from replicated(tmp_path_factory)


@pytest.fixture
async def ledger(pair: Replicated) -> AsyncIterator[PostgresLedger]:
    ledger = pair.kept.open()
    await ledger.claim(bind("first"), NOW_MS)
    yield impatient(ledger, TIMEOUT_S)
    await ledger.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Return a request id that no other test uses."""
    return str(request.node.name)


def bind(name: str) -> Claim:
    return a_bind(name, lease_ms=LEASE_MAX_MS)


async def waits_for_the_standby(operation: Awaitable[Any]) -> None:
    began_s = time.monotonic()
    with pytest.raises(LedgerUnavailable, match=r"TimeoutError|LockNotAvailableError"):
        await operation
    assert time.monotonic() - began_s < TIMEOUT_S + SLACK_S


# -- a standby that does not answer


async def test_claims_decisions_and_exports_wait_for_the_synchronous_standby(
    pair: Replicated, ledger: PostgresLedger, name: str
) -> None:
    in_doubt = replace(bind(f"{name} in doubt"), lease_ms=0)
    held = [bind(f"{name} held {number}") for number in range(3)]
    tokens = [await granted(impatient(ledger, 60.0), claim) for claim in (*held, in_doubt)]
    impatient(ledger, TIMEOUT_S)
    with pair.without_standby():
        await asyncio.gather(
            waits_for_the_standby(ledger.claim(bind(name), NOW_MS)),
            waits_for_the_standby(ledger.renew(held[0].key, tokens[0], 5_000, NOW_MS)),
            waits_for_the_standby(ledger.record(held[1].key, tokens[1], APPLIED, NOW_MS)),
            waits_for_the_standby(ledger.undo(held[2].key, tokens[2], NOW_MS)),
        )
        await waits_for_the_standby(
            ledger.resolve(in_doubt.key, APPLIED, who="ann", why="asked", now_ms=NOW_MS)
        )
        await waits_for_the_standby(anext(ledger.rows()))
    assert await eventually(lambda: ledger.look(held[1], NOW_MS), lambda said: said == Known(APPLIED))
    granted_again = await eventually(
        lambda: ledger.claim(bind(name), NOW_MS), lambda said: isinstance(said, Granted)
    )
    assert not granted_again.was_in_doubt


async def test_outcome_that_may_be_late_and_reads_do_not_wait_for_the_standby(
    pair: Replicated, ledger: PostgresLedger, name: str
) -> None:
    token = await granted(impatient(ledger, 60.0), bind(name))
    with pair.without_standby():
        assert await ledger.record(bind(name).key, token, LATE, NOW_MS)
        assert await ledger.look(bind(name), NOW_MS) == Known(APPLIED)
        assert len(await ledger.find(name)) == 1


@pytest.mark.parametrize("setting", ["off", "local"])
async def test_claims_are_durable_whatever_the_database_sets(
    pair: Replicated, name: str, setting: str
) -> None:
    pair.kept.sql(f"ALTER DATABASE ledger SET synchronous_commit = {setting}")
    ledger = pair.kept.open()
    try:
        assert await ledger._database.value("SHOW synchronous_commit") == setting
        impatient(ledger, TIMEOUT_S)
        with pair.without_standby():
            await waits_for_the_standby(ledger.claim(bind(name), NOW_MS))
    finally:
        pair.kept.sql("ALTER DATABASE ledger RESET synchronous_commit")
        await ledger.close()


# -- a standby as the only server


def test_standby_alone_is_unavailable(pair: Replicated) -> None:
    url = pair.standby.url("ledger")
    with pytest.raises(LedgerUnavailable, match="cannot be reached: TargetServerAttributeNotMatched"):
        pair.kept.open(url)
    with pytest.raises(LedgerUnavailable, match="TargetServerAttributeNotMatched"):
        fault_of(url, pair.kept.key)


async def test_standby_that_the_url_allows_grants_nothing(pair: Replicated, name: str) -> None:
    ledger = pair.kept.open(f"{pair.standby.url('ledger')}?target_session_attrs=any")
    with pytest.raises(LedgerUnavailable, match=r"FeatureNotSupportedError \(0A000\)"):
        await ledger.claim(bind(name), NOW_MS)
    await ledger.close()


# -- failover


def killed(primary: Postgres) -> None:
    primary.kill()


def frozen(primary: Postgres) -> None:
    primary.freeze()


def read_only(primary: Postgres) -> None:
    """Let the old primary run on, but accept no writes."""
    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()")


@pytest.mark.parametrize("fail", [killed, frozen, read_only])
async def test_gateway_follows_a_failover(own_pair: Replicated, fail: Callable[[Postgres], None]) -> None:
    primary, standby = own_pair.kept.server, own_pair.standby
    ledger = own_pair.kept.open(own_pair.url)
    done, held = bind("done"), bind("held")
    await ended(ledger, done)
    token = await granted(ledger, held)
    await asyncio.gather(*(granted(ledger, bind(f"many {number}")) for number in range(8)))
    impatient(ledger, TIMEOUT_S)
    fail(primary)
    await asyncio.to_thread(standby.promote)
    assert await eventually(lambda: ledger.record(held.key, token, APPLIED, NOW_MS))
    assert await eventually(lambda: ledger.claim(done, NOW_MS)) == Known(APPLIED)
    new = await eventually(
        lambda: ledger.claim(bind("new"), NOW_MS), lambda said: isinstance(said, Granted)
    )
    assert new.token > token + 8
    assert not new.was_in_doubt
    rows = standby.execute("SELECT count(*) FROM alipayhk_request", "ledger")
    assert int(rows) == 11
    await ledger.close()


async def test_claim_granted_before_a_failover_is_known_after_it(own_pair: Replicated) -> None:
    """Claims run while the primary is killed: each granted one is on the promoted standby."""
    gateways = [impatient(own_pair.kept.open(own_pair.url), TIMEOUT_S) for _ in range(2)]
    grants: dict[str, int] = {}
    is_running, are_some = True, asyncio.Event()

    async def claim(ledger: PostgresLedger, prefix: int) -> None:
        number = 0
        while is_running:
            number += 1
            claim = bind(f"{prefix} {number}")
            try:
                answer = await ledger.claim(claim, NOW_MS)
            except LedgerUnavailable:
                continue
            assert isinstance(answer, Granted)
            grants[claim.key.request_id] = answer.token
            are_some.set()

    claiming = [asyncio.create_task(claim(gateways[each % 2], each)) for each in range(4)]
    await are_some.wait()
    await asyncio.to_thread(own_pair.kept.server.kill)
    before = dict(grants)
    await asyncio.to_thread(own_pair.standby.promote)
    are_some.clear()
    await are_some.wait()
    is_running = False
    await asyncio.gather(*claiming)
    found = own_pair.standby.execute("SELECT request_id, token, state FROM alipayhk_request", "ledger")
    rows = {line.split("|")[0]: line.split("|")[1:] for line in found.splitlines()}
    assert {request_id: rows.get(request_id) for request_id in grants} == {
        request_id: [str(token), State.SENDING] for request_id, token in grants.items()
    }
    assert len(grants) > len(before)
    assert len(set(grants.values())) == len(grants)
    for ledger in gateways:
        await ledger.close()
