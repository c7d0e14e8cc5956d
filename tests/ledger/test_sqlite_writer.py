"""The writer thread: shared commits, failing and cancelled operations, and the audit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.ledger import Ending, Granted, InProgress, Known, Ledger, LedgerUnavailable
from service.ledger.sqlite import writer
from service.ledger.sqlite.ledger import PAGE_ROWS, SqliteLedger
from tests.ledger.levels import (
    APPLIED,
    IN_DOUBT,
    NOW_MS,
    REJECTED,
    a_bind,
    a_claim,
    ended,
    granted,
    opened,
    row_of,
    sqlite_url,
)
from tests.until import until


def connection_of(ledger: Ledger) -> sqlite3.Connection:
    assert isinstance(ledger, SqliteLedger)
    return ledger._writer._tables.connection


def statements_of(ledger: Ledger) -> list[str]:
    """Return a list that collects the SQL statements from now on."""
    reported: list[str] = []
    connection_of(ledger).set_trace_callback(reported.append)
    return reported


@contextmanager
def held_up(ledger: Ledger, directory: Path) -> Iterator[list[str]]:
    """Hold the write lock inside the block, so that operations queue up; yield the statements so far."""
    with closing(sqlite3.connect(directory / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield statements_of(ledger)
        other.execute("ROLLBACK")


async def queued(reported: list[str], *operations: Any) -> list[asyncio.Task[Any]]:
    """Start operations together, and wait until the writer waits for the lock with the first ones."""
    tasks = [asyncio.ensure_future(operation) for operation in operations]
    await asyncio.sleep(2 * writer.GATHER_S)  # the event loop hands them over before
    await until(lambda: bool(reported))
    return tasks


def some_claims(count: int) -> list[Any]:
    return [a_claim(f"id-{number}", linkage=b"%d" % number) for number in range(count)]


async def test_operations_share_a_commit(sqlite: Ledger) -> None:
    reported = statements_of(sqlite)
    answers = await asyncio.gather(*(sqlite.claim(claim, NOW_MS) for claim in some_claims(64)))
    assert {type(answer) for answer in answers} == {Granted}
    assert reported.count("COMMIT") <= 3


@pytest.mark.parametrize(("idle_s", "commits"), [(-1.0, 1), (60.0, 2)], ids=["busy", "idle"])
async def test_operations_wait_for_others_only_while_the_event_loop_is_busy(
    sqlite: Ledger, monkeypatch: pytest.MonkeyPatch, idle_s: float, commits: int
) -> None:
    monkeypatch.setattr(writer, "IDLE_S", idle_s)
    monkeypatch.setattr(writer, "GATHER_S", 60.0)
    reported = statements_of(sqlite)
    first = asyncio.ensure_future(sqlite.claim(some_claims(2)[0], NOW_MS))
    await asyncio.wait({first}, timeout=0.5 if commits == 1 else None)
    assert first.done() is (commits == 2)
    second = asyncio.ensure_future(sqlite.claim(some_claims(2)[1], NOW_MS))
    await asyncio.sleep(0)
    monkeypatch.setattr(writer, "GATHER_S", 0.0)
    await asyncio.gather(first, second)
    assert reported.count("COMMIT") == commits


async def test_commits_outlive_a_power_loss(sqlite: Ledger) -> None:
    connection = connection_of(sqlite)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_commit_to_a_file_removed_during_the_transaction_fails(
    sqlite: Ledger, tmp_path: Path
) -> None:
    path, aside = tmp_path / "ledger.db", tmp_path / "aside.db"

    def remove(statement: str) -> None:
        if statement == "COMMIT":
            path.rename(aside)

    connection_of(sqlite).set_trace_callback(remove)
    with pytest.raises(LedgerUnavailable, match="cannot be reached: ENOENT"):
        await sqlite.claim(a_claim(), NOW_MS)
    connection_of(sqlite).set_trace_callback(None)
    aside.rename(path)


async def test_failed_connection_is_replaced(sqlite: Ledger, tmp_path: Path) -> None:
    await granted(sqlite, a_claim())
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as other:
        # A second connection keeps SQLite from deleting the write-ahead log at the close.
        other.execute("SELECT key_id FROM meta").fetchone()
        connection_of(sqlite).close()
        with pytest.raises(LedgerUnavailable, match="ProgrammingError"):
            await sqlite.look(a_claim(), NOW_MS)
        assert isinstance(await sqlite.claim(a_claim(), NOW_MS), InProgress)


async def test_batch_of_looks_takes_no_write_lock(sqlite: Ledger) -> None:
    reported = statements_of(sqlite)
    await asyncio.gather(*(sqlite.look(claim, NOW_MS) for claim in some_claims(10)))
    assert "BEGIN IMMEDIATE" not in reported


@pytest.mark.parametrize(
    ("bad", "failure"),
    [
        ({"biz_time_ms": 2**70, "biz_time_max_ms": None}, OverflowError),
        ({"caller": "\ud800"}, UnicodeEncodeError),
        ({"fingerprint": object()}, LedgerUnavailable),
    ],
)
async def test_failing_operation_does_not_fail_its_batch(
    sqlite: Ledger, tmp_path: Path, bad: dict[str, object], failure: type[Exception]
) -> None:
    operations = [sqlite.claim(claim, NOW_MS) for claim in some_claims(20)]
    operations.insert(7, sqlite.claim(a_claim("bad", linkage=b"bad", **bad), NOW_MS))
    with held_up(sqlite, tmp_path) as reported:
        tasks = await queued(reported, *operations)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers.pop(7), failure)
    assert {type(answer) for answer in answers} == {Granted}
    assert sorted(answer.token for answer in answers if isinstance(answer, Granted)) == list(range(1, 21))
    assert len([row async for row in sqlite.rows()]) == 20


async def test_operations_of_one_commit_get_what_each_would_get_alone(
    sqlite: Ledger, tmp_path: Path
) -> None:
    memory, _ = opened("memory:")

    async def tokens(level: Ledger) -> list[int]:
        """Prepare requests that are applied, rejected, being sent, and in doubt."""
        applied = await ended(level, a_claim("applied", linkage=b"a"))
        await ended(level, a_claim("rejected", linkage=b"r"), REJECTED)
        await ended(level, a_claim("doubt", linkage=b"d"), IN_DOUBT)
        await granted(level, a_claim("long", linkage=b"long", lease_ms=10**12))
        sent = [await granted(level, a_claim(f"sent-{n}", linkage=b"s%d" % n)) for n in range(20)]
        return [applied, *sent]

    def operations(level: Ledger, tokens: list[int]) -> list[Any]:
        """Return outcomes for a holder, an overtaken one, twice and none, and claims of every kind."""
        keys = [a_claim(name).key for name in ("applied", *(f"sent-{n}" for n in range(20)))]
        outcomes = [(key, token, APPLIED) for key, token in zip(keys, tokens, strict=True)]
        outcomes[0] = (keys[0], tokens[0], REJECTED)
        outcomes[3] = (keys[3], tokens[3] - 1, APPLIED)
        outcomes += [(keys[5], tokens[5], APPLIED), (keys[6], tokens[6], REJECTED)]
        claims = [a_claim(f"new-{n}", linkage=b"n%d" % n) for n in range(18)]
        claims[2:2] = [
            a_claim("applied", linkage=b"a"),
            a_claim("applied", linkage=b"a", fingerprint=b"other"),
            a_claim("rejected", linkage=b"r"),
            a_claim("doubt", linkage=b"d"),
            a_claim("new-1", linkage=b"n1"),
            a_claim("busy", linkage=b"n1"),
            a_claim("other api", linkage=None),
            a_claim("no order", linkage=None),
            a_claim("stale", linkage=b"a", biz_time_ms=NOW_MS - 1),
            a_claim("newer", linkage=b"a", biz_time_ms=NOW_MS + 1),
            a_claim("tie", linkage=b"s1", fingerprint=b"other"),
            a_claim("same", linkage=b"s2"),
            a_claim("future", linkage=b"f", biz_time_ms=NOW_MS + 10, biz_time_max_ms=NOW_MS + 9),
            a_claim("behind a long lease", linkage=b"long"),
        ]
        recorded = [level.record(*one, NOW_MS) for one in outcomes]
        return [*recorded, *(level.claim(claim, NOW_MS) for claim in claims)]

    expected = [await operation for operation in operations(memory, await tokens(memory))]
    prepared = operations(sqlite, await tokens(sqlite))
    with held_up(sqlite, tmp_path) as reported:
        tasks = await queued(reported, *prepared)
    assert [_without_token(answer) for answer in await asyncio.gather(*tasks)] == [
        _without_token(answer) for answer in expected
    ]
    assert reported.count("COMMIT") == 1
    granted_tokens = [answer.token for task in tasks if isinstance(answer := task.result(), Granted)]
    assert len(set(granted_tokens)) == len(granted_tokens) == max(granted_tokens) - 24
    for one in [row async for row in sqlite.rows()]:
        other = (await memory.find(one.key.request_id))[0]
        assert replace(one, token=0) == replace(other, token=0)


def _without_token(answer: Any) -> Any:
    return replace(answer, token=0) if isinstance(answer, Granted) else answer


async def test_claim_cancelled_in_the_queue_is_skipped(sqlite: Ledger, tmp_path: Path) -> None:
    with held_up(sqlite, tmp_path) as reported:
        (taken,) = await queued(reported, sqlite.claim(a_claim("id-0", linkage=b"0"), NOW_MS))
        waiting = await queued(reported, *(sqlite.claim(claim, NOW_MS) for claim in some_claims(3)[1:]))
        waiting[0].cancel()
    assert await taken == Granted(1, was_in_doubt=False)
    assert await waiting[1] == Granted(2, was_in_doubt=False)
    assert await row_of(sqlite, a_claim("id-1")) is None


async def test_claim_cancelled_while_it_is_granted_is_undone(sqlite: Ledger, tmp_path: Path) -> None:
    with held_up(sqlite, tmp_path) as reported:
        (taken,) = await queued(reported, sqlite.claim(a_claim(), NOW_MS))
        taken.cancel()
    await sqlite.look(a_claim(), NOW_MS)  # completed after the grant, whose undo is queued then
    assert await sqlite.look(a_claim(), NOW_MS) == Granted(0, was_in_doubt=False)
    assert await granted(sqlite, a_claim(fingerprint=b"corrected")) == 2


async def test_cancelled_claim_that_was_not_granted_undoes_nothing(sqlite: Ledger, tmp_path: Path) -> None:
    await granted(sqlite, a_claim())
    with held_up(sqlite, tmp_path) as reported:
        (taken,) = await queued(reported, sqlite.claim(a_claim(), NOW_MS))
        taken.cancel()
    await sqlite.look(a_claim(), NOW_MS)  # completed after the claim, whose undo would be queued then
    assert isinstance(await sqlite.claim(a_claim(), NOW_MS), InProgress)


async def test_outcome_whose_recording_was_cancelled_is_recorded(sqlite: Ledger, tmp_path: Path) -> None:
    token = await granted(sqlite, a_claim())
    with held_up(sqlite, tmp_path) as reported:
        tasks = await queued(
            reported, sqlite.look(a_claim(), NOW_MS), sqlite.record(a_claim().key, token, APPLIED, NOW_MS)
        )
        tasks[1].cancel()
    assert await sqlite.claim(a_claim(), NOW_MS) == Known(APPLIED)


async def test_close_completes_queued_operations(tmp_path: Path) -> None:
    ledger, _ = opened(sqlite_url(tmp_path))
    tasks = [asyncio.create_task(ended(ledger, claim)) for claim in some_claims(5)]
    claims = [asyncio.create_task(ledger.claim(claim, NOW_MS)) for claim in some_claims(400)[5:]]
    await asyncio.gather(*tasks)
    await ledger.close()
    assert {type(answer) for answer in await asyncio.gather(*claims)} == {Granted}
    await ledger.close()
    with pytest.raises(LedgerUnavailable, match="closed"):
        await ledger.claim(a_claim(), NOW_MS)
    again, _ = opened(sqlite_url(tmp_path))
    assert len([row async for row in again.rows()]) == 400
    await again.close()


@pytest.mark.parametrize(
    ("more", "ending"),
    [
        pytest.param(lambda n: {"biz_time_ms": NOW_MS + n}, APPLIED, id="newer requests"),
        pytest.param(lambda _: {"fingerprint": b"same"}, APPLIED, id="equal requests"),
        pytest.param(lambda n: {"biz_time_ms": NOW_MS - n}, IN_DOUBT, id="requests in doubt"),
    ],
)
async def test_claim_on_a_hot_linkage_reads_few_of_its_rows(
    sqlite: SqliteLedger, more: Callable[[int], dict[str, Any]], ending: Ending
) -> None:
    """Count the steps of SQLite's virtual machine, which do not depend on the real machine."""
    steps: list[None] = []
    for number in range(100):
        await ended(sqlite, a_claim(f"id-{number}", **more(number)), ending)
    connection = sqlite._writer._tables.connection
    connection.set_progress_handler(lambda: steps.append(None), 1)
    await sqlite.look(a_claim("new", fingerprint=b"same"), NOW_MS)
    connection.set_progress_handler(None, 0)
    assert len(steps) < 300


@pytest.mark.parametrize("which", [{}, {"in_doubt_at_ms": NOW_MS}], ids=["all", "in doubt"])
async def test_each_row_in_doubt_is_read_once(
    sqlite: SqliteLedger, monkeypatch: pytest.MonkeyPatch, which: dict[str, int]
) -> None:
    """Count the steps of SQLite's virtual machine for some rows, and for four times as many."""
    open_to_read, steps, most = sqlite._open_to_read, list[None](), list[int]()

    def counting() -> sqlite3.Connection:
        reader = open_to_read()
        reader.set_progress_handler(lambda: steps.append(None), 1)
        return reader

    monkeypatch.setattr(sqlite, "_open_to_read", counting)
    for first, count in ((0, PAGE_ROWS), (PAGE_ROWS, 4 * PAGE_ROWS)):
        binds = [a_bind(f"id-{number}") for number in range(first, count)]
        await asyncio.gather(*(ended(sqlite, bind, IN_DOUBT) for bind in binds))
        steps.clear()
        assert len([row async for row in sqlite.rows(**which)]) == count
        most.append(len(steps))
    assert most[1] < 5 * most[0]


async def test_resolution_outlives_its_row(sqlite: Ledger, tmp_path: Path) -> None:
    await ended(sqlite, a_claim(), IN_DOUBT)
    await sqlite.resolve(a_claim().key, APPLIED, who="ann", why="asked", now_ms=NOW_MS)
    assert await sqlite.drop(before_ms=NOW_MS + 1, now_ms=NOW_MS) == 1
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as other:
        found = other.execute("SELECT request_id, state, who, why, at_ms FROM resolution").fetchall()
    assert found == [("id-1", "applied", "ann", "asked", NOW_MS)]


async def test_dropped_id_that_is_used_again_gets_its_own_resolution(sqlite: Ledger) -> None:
    for why in ("first", "second"):
        await ended(sqlite, a_claim(), IN_DOUBT)
        await sqlite.resolve(a_claim().key, APPLIED, who="ann", why=why, now_ms=NOW_MS)
        row = await row_of(sqlite, a_claim())
        assert row is not None
        assert row.resolved is not None
        assert row.resolved.why == why
        await sqlite.drop(before_ms=NOW_MS + 1, now_ms=NOW_MS)


# -- outcomes that may be late

LATE = Ending(APPLIED.state, "S", "SUCCESS", APPLIED.sealed, may_be_late=True)
WITHOUT_SYNC, WITH_SYNC = "PRAGMA synchronous = NORMAL", "PRAGMA synchronous = FULL"
TOUCH = "UPDATE meta SET last_token = last_token"


def syncs(statements: list[str]) -> list[str]:
    """Return the statements that decide whether commits are durable."""
    return [text for text in statements if text in {WITHOUT_SYNC, WITH_SYNC, TOUCH, "COMMIT"}]


async def test_late_outcome_is_synced_by_a_transaction_of_its_own(sqlite: Ledger) -> None:
    token = await granted(sqlite, a_claim())
    reported = statements_of(sqlite)
    assert await sqlite.record(a_claim().key, token, LATE, NOW_MS)
    assert syncs(reported) == [WITHOUT_SYNC, "COMMIT"]
    await until(lambda: TOUCH in reported)
    await granted(sqlite, a_claim("later", linkage=b"later"))
    assert syncs(reported) == [WITHOUT_SYNC, "COMMIT", WITH_SYNC, TOUCH, "COMMIT", "COMMIT"]


async def test_late_outcome_is_synced_by_the_next_claim(
    sqlite: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SYNC_S", 1.0)
    token = await granted(sqlite, a_claim())
    reported = statements_of(sqlite)
    assert await sqlite.record(a_claim().key, token, LATE, NOW_MS)
    await granted(sqlite, a_claim("next", linkage=b"next"))
    await asyncio.sleep(1.5)
    assert syncs(reported) == [WITHOUT_SYNC, "COMMIT", WITH_SYNC, "COMMIT"]


async def test_transaction_that_changes_nothing_syncs_no_late_outcome(sqlite: Ledger) -> None:
    token = await granted(sqlite, a_claim())
    reported = statements_of(sqlite)
    assert await sqlite.record(a_claim().key, token, LATE, NOW_MS)
    assert not await sqlite.undo(a_claim().key, token, NOW_MS)
    await until(lambda: TOUCH in reported)


async def test_late_outcome_is_synced_before_the_ledger_closes(tmp_path: Path) -> None:
    ledger, _ = opened(sqlite_url(tmp_path))
    token = await granted(ledger, a_claim())
    reported = statements_of(ledger)
    assert await ledger.record(a_claim().key, token, LATE, NOW_MS)
    await ledger.close()
    assert syncs(reported)[:5] == [WITHOUT_SYNC, "COMMIT", WITH_SYNC, TOUCH, "COMMIT"]


async def test_other_outcomes_are_durable_when_they_are_returned(sqlite: Ledger) -> None:
    token = await granted(sqlite, a_bind())
    reported = statements_of(sqlite)
    assert await sqlite.record(a_bind().key, token, APPLIED, NOW_MS)
    assert syncs(reported) == ["COMMIT"]


async def test_numbers_of_changes_that_a_power_loss_undid_are_not_used_again(tmp_path: Path) -> None:
    ledger, _ = opened(sqlite_url(tmp_path))
    await granted(ledger, a_claim())
    await ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as crashed:
        crashed.execute("UPDATE meta SET run = 'a run that crashed'")
    ledger, _ = opened(sqlite_url(tmp_path))
    await granted(ledger, a_claim("later", linkage=b"later"))
    rows = [row async for row in ledger.rows()]
    await ledger.close()
    assert [row.key.request_id for row in rows] == [a_claim().key.request_id, "later"]
    assert rows[1].change - rows[0].change > 1_000_000
