"""A ledger of an older version is migrated with all its rows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from service.ledger import ClaimRejected, Granted, Known
from service.ledger.sqlite.schema import SCHEMA_VERSION
from tests.ledger.levels import (
    APPLIED,
    GATEWAY_REJECTED,
    IN_DOUBT,
    LEASE_MS,
    NOW_MS,
    a_bind,
    a_claim,
    granted,
    opened,
    sqlite_url,
    the_row,
)
from tests.ledger.older import back_to_version


async def test_migration_keeps_all_rows(tmp_path: Path) -> None:
    applied, doubtful, flying = a_claim("applied"), a_bind("doubtful"), a_bind("flying")
    ledger, _ = opened(sqlite_url(tmp_path))
    assert await ledger.record(applied.key, await granted(ledger, applied), APPLIED, NOW_MS)
    assert await ledger.record(doubtful.key, await granted(ledger, doubtful), IN_DOUBT, NOW_MS)
    token = await granted(ledger, flying)
    before = [await the_row(ledger, claim) for claim in (applied, doubtful, flying)]
    await ledger.close()
    back_to_version(1, tmp_path / "ledger.db")

    ledger, _ = opened(sqlite_url(tmp_path))
    assert [await the_row(ledger, claim) for claim in (applied, doubtful, flying)] == before
    assert await ledger.claim(applied, NOW_MS) == Known(APPLIED)
    assert await ledger.claim(doubtful, NOW_MS + LEASE_MS) is ClaimRejected.IN_DOUBT
    # The second version adds this state.
    assert await ledger.record(flying.key, token, GATEWAY_REJECTED, NOW_MS)
    assert await ledger.claim(flying, NOW_MS) == Granted(token + 1, was_in_doubt=False)
    await ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_migrated_and_new_files_have_the_same_schema(tmp_path: Path) -> None:
    schemas = []
    for name in ("new", "old"):
        (directory := tmp_path / name).mkdir()
        ledger, _ = opened(sqlite_url(directory))
        await granted(ledger, a_claim())
        await ledger.close()
        if name == "old":
            back_to_version(1, directory / "ledger.db")
            ledger, _ = opened(sqlite_url(directory))
            await ledger.close()
        with closing(sqlite3.connect(directory / "ledger.db")) as connection:
            schemas.append(sorted(connection.execute("SELECT type, name, sql FROM sqlite_master")))
    assert schemas[0] == schemas[1]
