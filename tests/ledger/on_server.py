"""A ledger in a database of a PostgreSQL server, with its key in a directory of its own."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import pytest

from service.ledger import Known, Ledger, LedgerFault, LedgerUnavailable, LinkageBusy
from service.ledger.opening import fault_of
from service.ledger.postgres.ledger import PostgresLedger
from service.ledger.postgres.lost_claims import LostClaim
from tests.ledger.levels import APPLIED, NOW_MS, a_bind, a_claim, ended, granted, opened
from tests.postgres.processes import WAIT_MAX_S
from tests.postgres.server import Postgres, program

PATIENT_S: Final = 60.0
"""LEDGER_TIMEOUT_S of a ledger that must not fail, also on a busy machine."""


@dataclass(frozen=True)
class OnServer:
    """A database, which can have a ledger, and a key."""

    server: Postgres
    database: str
    key: Path

    @property
    def url(self) -> str:
        return self.server.url(self.database)

    @property
    def where(self) -> str:
        """The URL as texts have it: without user and password."""
        return f"postgresql://127.0.0.1:{self.server.port}/{self.database}"

    @property
    def marker(self) -> Path:
        return self.key.with_name(f"{self.key.name}.ledgers")

    def open(self, url: str | None = None, **options: Any) -> PostgresLedger:
        """Open the ledger as `serve` does."""
        options = {"pool_max": 4, "timeout_s": PATIENT_S, **options}
        return cast("PostgresLedger", opened(url or self.url, self.key, **options)[0])

    def sql(self, statements: str) -> str:
        """Execute statements as a superuser; return the rows as lines."""
        return self.server.execute(statements, self.database)

    async def connections(self) -> int:
        """Return how many connections gateways have to the database."""
        mine = f"datname = '{self.database}' AND usename = 'gateway'"
        query = f"SELECT count(*) FROM pg_stat_activity WHERE {mine}"
        return int(await asyncio.to_thread(self.sql, query))

    def empty(self) -> None:
        """Remove everything from the database."""
        self.server.empty_database(self.database)

    def replace(self, template: str) -> None:
        """Replace the database by a copy of another one."""
        self.server.create_database(self.database, template)

    def dump(self) -> str:
        """Return the database as SQL, as pg_dump writes it."""
        words = ("-h", self.server.home.path, "-p", str(self.server.port), "-U", "postgres")
        return self.server.home.run(program("pg_dump"), *words, self.database)

    def entries(self) -> dict[str, int]:
        """Return the ids of the ledgers in the marker, with their last tokens."""
        ledgers = json.loads(self.marker.read_bytes())["ledgers"]
        return {ledger_id: entry["last_token"] for ledger_id, entry in ledgers.items()}

    def refusal(self, url: str | None = None) -> str:
        """Return the refusal of `serve`; `config check` must report the same and write nothing."""
        before = self.marker.read_bytes() if self.marker.exists() else None
        with without_secrets(self.server), pytest.raises(LedgerFault) as refused:
            self.open(url)
        if before is not None:
            self.marker.write_bytes(before)
        checked = fault_of(url or self.url, self.key)
        assert checked == str(refused.value), checked
        assert (self.marker.read_bytes() if before is not None else None) == before
        return str(refused.value)


class without_secrets:  # noqa: N801  (read like a function)
    """Assert that the errors in this block contain no password, not even in their tracebacks."""

    def __init__(self, server: Postgres) -> None:
        self._server = server

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            has_no_secret("".join(traceback.format_exception(error)) + repr(error), self._server)


def has_no_secret(text: str, server: Postgres) -> None:
    """Assert that a text does not contain the password, as it is or as URLs have it."""
    assert server.password[:32] not in text


async def used(ledger: Ledger, *request_ids: str) -> None:
    """Apply requests, and close the ledger."""
    for request_id in request_ids:
        await ended(ledger, a_bind(request_id))
    await ledger.close()


async def eventually(
    operation: Callable[[], Awaitable[Any]], expected: Callable[[Any], bool] = lambda _: True
) -> Any:
    """Repeat an operation until the ledger is available and the answer is as expected; return it."""
    give_up = time.monotonic() + WAIT_MAX_S
    while True:
        try:
            answer = await operation()
            if expected(answer):
                return answer
        except LedgerUnavailable as error:
            answer = error
        assert time.monotonic() < give_up, answer
        await asyncio.sleep(0.05)


def impatient(ledger: PostgresLedger, timeout_s: float = 1.0) -> PostgresLedger:
    """Give each operation of a ledger so much time; its opening may need more on a busy machine."""
    cast("Any", ledger)._database._timeout_s = timeout_s
    return ledger


async def every_operation(ledger: PostgresLedger) -> None:
    """Call every operation, so that each one uses its tables and functions."""
    sync, bind = a_claim("sync"), a_bind("bind")
    token = await granted(ledger, sync)
    busy = await ledger.claim(a_claim("other"), NOW_MS)
    assert isinstance(busy, LinkageBusy)
    await ledger.wait(busy, 0.01)
    assert await ledger.renew(sync.key, token, 1000, NOW_MS)
    assert await ledger.extend(sync.key, token, 1000, NOW_MS)
    assert await ledger.record(sync.key, token, APPLIED, NOW_MS)
    assert await ledger.undo(bind.key, await granted(ledger, bind), NOW_MS)
    await ledger._undo_claim(LostClaim(bind.key, bind.linkage, b"never arrived"))
    await ledger.queue(a_claim("leaves"))
    ledger.leave(a_claim("leaves").key)
    await granted(ledger, replace(bind, lease_ms=0))
    assert await ledger.resolve(bind.key, APPLIED, who="ann", why="asked", now_ms=NOW_MS)
    assert await ledger.look(bind, NOW_MS) == Known(replace(APPLIED, resolved_by_operator=True))
    assert len(await ledger.find("bind")) == 1
    assert [row.key.request_id async for row in ledger.rows(since_ms=1)] == ["sync", "bind"]
    assert [row async for row in ledger.rows(in_doubt_at_ms=NOW_MS)] == []
    await ledger.drop(before_ms=NOW_MS, now_ms=NOW_MS)
    assert await ledger.drop(before_ms=NOW_MS + 5, now_ms=NOW_MS + 5) == 2
