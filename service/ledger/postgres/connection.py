"""Connect to the one of several servers that is the primary."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from .url import each_host, for_driver, prepares_statements


async def connect(url: str, timeout_s: float) -> asyncpg.Connection:
    """Connect to the primary; raise what asyncpg raises.

    All hosts are tried together: one that was the primary before may not answer within the time limit.
    """
    attempts = [asyncio.ensure_future(_connect_to(host, timeout_s)) for host in each_host(url)]
    failures: list[Exception] = []
    chosen = None
    try:
        for attempt in asyncio.as_completed(attempts):
            try:
                chosen = await attempt
            except Exception as error:  # noqa: BLE001  (one of them is raised below)
                failures.append(error)
            else:
                return chosen
        said = (error for error in failures if isinstance(error, asyncpg.PostgresError))
        raise next(said, failures[0])
    finally:
        for each in attempts:
            if not each.cancel() and not each.exception() and each.result() is not chosen:
                each.result().terminate()


async def _connect_to(url: str, timeout_s: float) -> asyncpg.Connection:
    options: dict[str, Any] = {"timeout": timeout_s, "command_timeout": timeout_s}
    if "target_session_attrs=" not in url:
        options["target_session_attrs"] = "read-write"  # only a primary can be written
    if not prepares_statements(url):
        options["statement_cache_size"] = (
            0  # each statement is sent with its parameters, in one transaction
        )
    return await asyncpg.connect(for_driver(url), **options)
