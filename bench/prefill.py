"""Make a ledger that already has many requests."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from bench.ledger import REPLY, claims
from service.ledger import Ending, Granted, State
from service.ledger.opening import open_ledger


def prefill(directory: Path, rows: int) -> None:
    """Make a ledger with so many requests, each for its own linkage, one per second up to now.

    The gateway's own ledger writes the first row, and SQL copies it.
    """
    directory.mkdir()
    file, now_ms = directory / "ledger.db", int(time.time() * 1e3)
    asyncio.run(_first_row(f"sqlite:///{file}", now_ms))
    with closing(sqlite3.connect(file)) as database, database:
        columns = [name for _, name, *_ in database.execute("PRAGMA table_info(request)")]
        changed = {
            "id": "NULL",
            "request_id": "'before-' || number",
            "fingerprint": "randomblob(32)",
            "linkage": "randomblob(32)",
            "change": "last_change + number",
            "created_ms": f"{now_ms} - ({rows} - number) * 1000",
            "updated_ms": f"{now_ms} - ({rows} - number) * 1000",
        }
        values = ", ".join(changed.get(name, f"first.{name}") for name in columns)
        numbers = (
            "WITH RECURSIVE numbers(number) AS "
            "(SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < ?)"
        )
        source = "numbers, meta, (SELECT * FROM request LIMIT 1) AS first"
        copy = f"{numbers} INSERT INTO request SELECT {values} FROM {source}"  # noqa: S608
        database.execute(copy, (rows,))
        database.execute("UPDATE meta SET last_change = last_change + ?", (rows,))


async def _first_row(url: str, now_ms: int) -> None:
    ledger, vault = open_ledger(url, None, random_bytes=os.urandom)
    (claim,) = claims(vault, 1, "first")
    granted = await ledger.claim(claim, now_ms)
    assert isinstance(granted, Granted)
    await ledger.record(claim.key, granted.token, Ending(State.APPLIED, "S", "SUCCESS", REPLY), now_ms)
    await ledger.close()
