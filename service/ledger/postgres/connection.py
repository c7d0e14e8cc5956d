"""Connect to the one of several servers that is the primary, or say what is wrong with the URL."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

import asyncpg

from ..errors import LedgerFault
from .statements import META
from .url import each_host, for_driver, prepares_statements

_WRONG_OPTIONS: Final = (
    ValueError,
    OverflowError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
)
"""Errors of a connection with a part of its URL that the driver or the server does not accept."""
_NO_TLS: Final = "rejected SSL upgrade"
"""The driver's words if the server has no TLS; its class is that of other failures, too."""

Connect = Callable[[str, float], Coroutine[Any, Any, asyncpg.Connection]]
Recognizes = Callable[[Collection[str], int], bool]
"""Returns whether a database has the ledger that was opened, by its ids and its last token."""


class LedgerReplaced(OSError):
    """The database has another ledger than at the start, an older copy of it, or none."""


async def connect_or_explain(url: str, where: str, timeout_s: float) -> asyncpg.Connection:
    """Connect; raise LedgerFault if the URL or TLS is wrong, else what asyncpg raises."""
    try:
        return await connect(url, timeout_s)
    except ssl.SSLError as error:
        cause = f"its TLS failed: {error.reason or 'SSL error'}"
    except _WRONG_OPTIONS:
        cause = "LEDGER_URL has a host, a port or an option that is wrong"
    except PermissionError:
        cause = "this user may not read a file that LEDGER_URL names, or the files in ~/.postgresql"
    except ConnectionError as error:
        if _NO_TLS not in str(error):
            raise
        cause = "LEDGER_URL requires TLS, and the server has no TLS"
    raise LedgerFault(f"the ledger {where} cannot be used: {cause}")


async def connect_again(url: str, timeout_s: float, recognizes: Recognizes) -> asyncpg.Connection:
    """Connect to a database that was open before; raise LedgerReplaced if it is another one now."""
    connection = await connect(url, timeout_s)
    try:
        found = await connection.fetch(META)
        if not any(recognizes({meta["ledger_id"], *meta["former_ids"]}, meta["token"]) for meta in found):
            raise LedgerReplaced
    except BaseException:
        connection.terminate()
        raise
    return connection


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
        # Without a cache the driver sends each statement with its parameters, in one transaction.
        options["statement_cache_size"] = 0
    return await asyncpg.connect(for_driver(url), **options)
