"""Fixtures: an empty ledger of each level."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from service.ledger import Ledger
from service.ledger.postgres.database import connected
from service.ledger.postgres.ledger import PostgresLedger
from service.ledger.postgres.opening import wait_for
from service.ledger.vault import make_key_file
from tests.ledger.clocked import CLOCK, AtTestTime
from tests.ledger.levels import URLS, opened, sqlite_url
from tests.ledger.on_server import OnServer
from tests.postgres.server import Postgres


@pytest.fixture(params=[*URLS, "postgres"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AtTestTime]:
    """Return an empty ledger of each level that records, at the time of each operation."""
    if request.param == "postgres":
        ledger: AtTestTime = request.getfixturevalue("postgres_ledger")
    else:
        ledger = AtTestTime(cast("Any", opened(URLS[request.param](tmp_path))[0]))
    yield ledger
    await ledger.close()


@pytest.fixture
def ledger_key(tmp_path: Path) -> Path:
    """Return a new key file."""
    path = tmp_path / "ledger.key"
    make_key_file(path, random_bytes=os.urandom)
    return path


@pytest.fixture
def on_server(postgres: Postgres, postgres_url: str, ledger_key: Path) -> OnServer:
    """Return an empty database of the shared server, and a key for its ledger."""
    return OnServer(postgres, urlsplit(postgres_url).path.removeprefix("/"), ledger_key)


@pytest.fixture
def postgres_ledger(postgres_url: str, ledger_key: Path) -> AtTestTime:
    """Return an empty PostgreSQL ledger, whose database has the tests' time."""
    ledger, _ = opened(postgres_url, ledger_key)
    wait_for(_set_clock(postgres_url))
    return AtTestTime(cast("PostgresLedger", ledger))


async def _set_clock(url: str) -> None:
    async with connected(url, "the test's database", 10.0) as server:
        await server.execute(CLOCK)


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Ledger]:
    """Return an empty SQLite ledger, in ledger.db."""
    ledger, _ = opened(sqlite_url(tmp_path))
    yield ledger
    await ledger.close()
