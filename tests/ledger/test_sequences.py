"""Random sequences of operations: every level must answer like the memory level."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.ledger import Claim, Ending, Granted, Key, Ledger, Row, State
from service.ledger.postgres import ledger as postgres_ledger
from service.ledger.vault import make_key_file
from tests.ledger.clocked import CLOCK, AtTestTime
from tests.ledger.levels import (
    APPLIED,
    GATEWAY_REJECTED,
    IN_DOUBT,
    LEASE_MS,
    NOW_MS,
    REJECTED,
    URLS,
    opened,
)
from tests.ledger.on_server import OnServer
from tests.postgres.server import Postgres

Operation = Callable[[Ledger, "Past"], Any]
"""An operation on a ledger; the tokens come from the answers so far."""


@dataclass
class Past:
    """The clock and the tokens of one ledger."""

    now_ms: int = NOW_MS
    tokens: list[int] = field(default_factory=list)

    def token(self, back: int) -> int:
        """Return one of the latest tokens."""
        return self.tokens[-1 - back] if back < len(self.tokens) else 0


keys = st.builds(
    Key, st.sampled_from(["client-1", "client-2"]), st.just("SyncLinkage"), st.sampled_from("abcd")
)
claims = st.builds(
    Claim,
    key=keys,
    caller=st.just("loyalty"),
    fingerprint=st.sampled_from([b"one", b"one", b"two"]),
    linkage=st.sampled_from([b"L", b"L", b"M", None]),
    biz_time_ms=st.integers(NOW_MS, NOW_MS + 3),
    biz_time_max_ms=st.just(NOW_MS + 2),
    may_repeat=st.booleans(),
    lease_ms=st.just(LEASE_MS),
)
backs = st.integers(0, 2)
endings = st.sampled_from([APPLIED, REJECTED, IN_DOUBT, GATEWAY_REJECTED])
finals = st.sampled_from([Ending(State.APPLIED), Ending(State.REJECTED)])
times = st.sampled_from([1, 100, LEASE_MS - 1, LEASE_MS])


def claiming(claim: Claim) -> Operation:
    async def do(ledger: Ledger, past: Past) -> object:
        seen = await ledger.look(claim, past.now_ms)
        answer = await ledger.claim(claim, past.now_ms)
        if isinstance(answer, Granted):
            past.tokens.append(answer.token)
            assert isinstance(seen, Granted)
            assert seen.was_in_doubt == answer.was_in_doubt
        else:
            assert seen == answer
        return answer

    return do


def continuing(name: str, key: Key, back: int) -> Operation:
    return lambda ledger, past: getattr(ledger, name)(key, past.token(back), LEASE_MS, past.now_ms)


def recording(key: Key, back: int, ending: Ending) -> Operation:
    return lambda ledger, past: ledger.record(key, past.token(back), ending, past.now_ms)


def undoing(key: Key, back: int) -> Operation:
    return lambda ledger, past: ledger.undo(key, past.token(back), past.now_ms)


def resolving(key: Key, ending: Ending) -> Operation:
    return lambda ledger, past: ledger.resolve(key, ending, who="ann", why="asked", now_ms=past.now_ms)


def dropping(ago_ms: int) -> Operation:
    return lambda ledger, past: ledger.drop(before_ms=past.now_ms - ago_ms, now_ms=past.now_ms)


def waiting(ms: int) -> Operation:
    async def do(_: Ledger, past: Past) -> None:
        past.now_ms += ms

    return do


operations = st.one_of(
    st.builds(claiming, claims),
    st.builds(claiming, claims),
    st.builds(continuing, st.sampled_from(["renew", "extend"]), keys, backs),
    st.builds(recording, keys, backs, endings),
    st.builds(recording, keys, st.just(0), endings),
    st.builds(undoing, keys, backs),
    st.builds(resolving, keys, finals),
    st.builds(dropping, times),
    st.builds(waiting, times),
)


async def everything(ledger: Ledger) -> dict[Key, Row]:
    return {row.key: row async for row in ledger.rows()}


async def run_on_level_and_memory(level: Ledger, sequence: list[Operation]) -> None:
    memory, _ = opened("memory:")
    past, past_of_level = Past(), Past()
    for operation in sequence:
        expected = await operation(memory, past)
        assert await operation(level, past_of_level) == expected
        assert await everything(level) == await everything(memory)
        assert {key async for key in _in_doubt(level, past.now_ms)} == {
            key async for key in _in_doubt(memory, past.now_ms)
        }


async def _in_doubt(ledger: Ledger, now_ms: int) -> Any:
    async for row in ledger.rows(in_doubt_at_ms=now_ms):
        yield row.key


async def run_on_new_level(url: str, sequence: list[Operation]) -> None:
    level, _ = opened(url)
    try:
        await run_on_level_and_memory(level, sequence)
    finally:
        await level.close()


@pytest.mark.parametrize("level", sorted(URLS.keys() - {"memory"}))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sequence=st.lists(operations, min_size=1, max_size=40))
def test_level_answers_like_the_memory_level(level: str, sequence: list[Operation]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run_on_new_level(URLS[level](Path(directory)), sequence))


# -- PostgreSQL, where one database is emptied for each sequence

EMPTY: Final = """
    TRUNCATE alipayhk_request, alipayhk_resolution, alipayhk_waiting, alipayhk_undone, alipayhk_clock_mark;
    SELECT setval('alipayhk_token', 1, false), setval('alipayhk_change', 1, false);
"""


@pytest.fixture(scope="module")
def postgres_level(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[asyncio.Runner, AtTestTime]]:
    """Return a ledger whose database has the tests' time, and the event loop of its connections."""
    postgres.create_database("sequences")
    on_server = OnServer(postgres, "sequences", tmp_path_factory.mktemp("key") / "ledger.key")
    make_key_file(on_server.key, random_bytes=os.urandom)
    ledger = on_server.open(pool_max=1)
    on_server.sql(f"SET ROLE gateway; {CLOCK}")
    with asyncio.Runner() as runner:
        yield runner, AtTestTime(ledger)
        runner.run(ledger.close())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sequence=st.lists(operations, min_size=1, max_size=40))
def test_postgresql_answers_like_the_memory_level(
    postgres_level: tuple[asyncio.Runner, AtTestTime], sequence: list[Operation]
) -> None:
    async def run() -> None:
        for statement in EMPTY.strip().split("\n"):
            await level._database.fetch(statement)
        await run_on_level_and_memory(cast("Ledger", level), sequence)

    runner, level = postgres_level
    with pytest.MonkeyPatch.context() as patched:
        # In the memory level, the requests that wait for a linkage are not ordered.
        patched.setattr(postgres_ledger, "PLACE_MS", 0)
        runner.run(run())
