"""Fixtures of all tests: PostgreSQL servers and databases. tests/conftest.py loads this as a plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from tests.postgres.server import Postgres

StartPostgres = Callable[..., Postgres]
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return the server that the tests of this process share: they do not stop, freeze or configure it."""
    with Postgres.start(fsync=False) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """Return the URL of an empty database on the shared server; creating and dropping it takes 0.1 s."""
    name = f"test_{next(_numbers)}"
    postgres.create_database(name)
    yield postgres.url(name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def start_postgres() -> Iterator[StartPostgres]:
    """Return `Postgres.start` for servers of this test, which are closed when it ends; each takes 1 s."""
    with ExitStack() as servers:
        yield lambda **settings: servers.enter_context(Postgres.start(**settings))
