"""From `LEDGER_URL` and `LEDGER_KEY_FILE` to an open ledger, or a sentence that says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import Ledger, LedgerFault
from .levels import Level, level_of
from .vault import RandomBytes, Vault

COMMAND_TIMEOUT_S: Final = 10.0
"""How long an operation of a command may take on a server."""


def check_url(url: str) -> str:
    """Return the URL of a ledger that this version can open; raise ValueError."""
    level_of(url)
    return url


def url_in_place(url: str) -> str:
    """Return the URL of a ledger that can be where the URL says; raise ValueError."""
    level_of(url).check_place(url)
    return url


def open_ledger(
    url: str,
    key_file: Path | None,
    *,
    random_bytes: RandomBytes,
    create: bool = True,
    report: Callable[[str], None] = lambda _: None,
    on_create: Callable[[], None] = lambda: None,
    pool_max: int = 1,
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> tuple[Ledger, Vault]:
    """Open a ledger, with the vault that seals its rows.

    Without `create`, it must exist outside this process. `report` is called with the cause when the
    ledger's marker file can no longer be written, and `on_create` if this opening has created a ledger that
    outlives the process. `pool_max` and `timeout_s` are for a ledger on a server: the most connections, and
    how long one operation may take. Raise LedgerFault if the ledger cannot be used until an operator acts,
    and LedgerUnavailable while another process holds it or no server answers.
    """
    level = _level_of(url)
    if not create and not level.outlives_process:
        raise LedgerFault(f"LEDGER_URL is {url}: no ledger exists outside the gateway process")
    return level.open(
        url,
        key_file,
        random_bytes=random_bytes,
        create=create,
        report=report,
        on_create=on_create,
        pool_max=pool_max,
        timeout_s=timeout_s,
    )


def fault_of(url: str, key_file: Path | None) -> str | None:
    """Return why `serve` would refuse a ledger now, as a sentence, or None; write nothing.

    Raise LedgerUnavailable if its server does not tell.
    """
    return level_of(url).fault_of(url, key_file)


def file_of(url: str) -> Path:
    """Return the ledger's database file; raise LedgerFault if its level has none."""
    path = _level_of(url).file_of(url)
    if path is None:
        raise LedgerFault(f"LEDGER_URL is {url}: the ledger has no file")
    return path


def server_of(url: str) -> str:
    """Return the server and database of a ledger, without secrets, or an empty text if it is on none."""
    return level_of(url).server_of(url)


def secrets_of(url: str, key_file: Path | None) -> tuple[Path, ...]:
    """Return the paths of the ledger's files that only the gateway's user should read."""
    return level_of(url).secrets_of(url, key_file)


def _level_of(url: str) -> Level:
    try:
        return level_of(url)
    except ValueError as error:
        raise LedgerFault(f"LEDGER_URL {error}") from None
