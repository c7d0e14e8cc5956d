"""Fixtures of all tests: PostgreSQL servers and databases. tests/conftest.py loads this as a plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from tests.postgres.server import Postgres

StartPostgres = Callable[..., Postgres]
DATABASE: Final = "test"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return the server that the tests of this process share: they do not stop, freeze or configure it."""
    with Postgres.start(fsync=False) as server:
        server.create_database(DATABASE)
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """Return the URL of a database on the shared server, emptied for this test."""
    postgres.empty_database(DATABASE)
    return postgres.url(DATABASE)


@pytest.fixture
def start_postgres() -> Iterator[StartPostgres]:
    """Return `Postgres.start` for servers of this test, which are closed when it ends; each takes 1 s."""
    with ExitStack() as servers:
        yield lambda **settings: servers.enter_context(Postgres.start(**settings))
