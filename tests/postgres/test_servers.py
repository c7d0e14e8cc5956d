"""Tests of the servers themselves, with the driver that the ledger uses."""

from __future__ import annotations

import asyncpg


async def test_a_test_gets_an_empty_database_that_the_gateway_owns(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    assert await connection.fetchval("SELECT usesuper FROM pg_user WHERE usename = current_user") is False
    await connection.execute("CREATE TABLE rows (id integer)")
    await connection.close()
