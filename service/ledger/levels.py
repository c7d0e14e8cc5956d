"""The levels that a ledger can have: one row of `LEVELS` for each.

A new level is one module or package with a class that implements `Ledger`, and one row here. The settings,
their cross-checks, the gateway and the commands read the row and name no level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from . import Ledger
from .memory import MemoryLedger
from .off import OffLedger
from .postgres import url as postgres
from .sqlite import opening as sqlite
from .sqlite.ledger import SqliteLedger
from .vault import KEY_BYTES, RandomBytes, Vault, read_key_file


class Open(Protocol):
    """Opens a ledger of one level, with the vault that seals its rows.

    It blocks, because it runs before the gateway accepts calls and in commands that have no event loop. A
    level with an asynchronous driver checks its database over a blocking connection here, and opens its
    connection pool at the first operation.
    """

    def __call__(
        self,
        url: str,
        key_file: Path | None,
        /,
        *,
        random_bytes: RandomBytes,
        create: bool,
        report: Callable[[str], None],
        on_create: Callable[[], None],
        pool_max: int,
        timeout_s: float,
    ) -> tuple[Ledger, Vault]:
        """Open a ledger, as `open_ledger` describes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A level: its URLs, how to open it, and what it promises."""

    scheme: str
    """The start of its LEDGER_URL; the whole of it if `check_url` is None."""
    forms: tuple[str, ...]
    """Its LEDGER_URL as error texts and the documentation write it."""
    open: Open
    outlives_process: bool
    """Whether a later process finds what was recorded, also after kill -9."""
    shared_by_workers: bool
    """Whether every process of one host gets the same answers."""
    shared_by_hosts: bool
    """Whether every process on every host gets the same answers."""
    records: bool = True
    """Whether it records anything. If not, its claims need no hashes, and it is given no outcomes."""
    needs_key_file: bool = False
    """Whether LEDGER_KEY_FILE is required: no process can make a key that others have, too."""
    check_url: Callable[[str], None] | None = None
    """Raises ValueError if what follows the scheme cannot be used."""
    check_place: Callable[[str], None] = lambda _: None
    """Raises ValueError if no ledger can be at the URL, as far as can be seen without opening it."""
    fault_of: Callable[[str, Path | None], str | None] = lambda *_: None
    """Returns why `open` would refuse this URL with this key file now, or None; writes nothing."""
    file_of: Callable[[str], Path | None] = lambda _: None
    """Returns the database file on which `ledger init`, `backup` and `restore` work, if there is one."""
    server_of: Callable[[str], str] = lambda _: ""
    """Returns the database server and database, without secrets, if the ledger is on a server."""
    secrets_of: Callable[[str, Path | None], tuple[Path, ...]] = lambda _, key: (key,) if key else ()
    """Returns the paths of the files that only the gateway's user should read."""

    @property
    def name(self) -> str:
        """Return the scheme without its punctuation."""
        return self.scheme.partition(":")[0]


def _open_in_process(
    ledger: Callable[[], Ledger],
    _url: str,
    key_file: Path | None,
    /,
    *,
    random_bytes: RandomBytes,
    **_others: object,
) -> tuple[Ledger, Vault]:
    """Open a level whose rows exist only in this process, so that a random key is enough."""
    key = random_bytes(KEY_BYTES) if key_file is None else read_key_file(key_file)
    return ledger(), Vault(key, random_bytes=random_bytes)


def _open_postgres(url: str, key_file: Path | None, /, **options: Any) -> tuple[Ledger, Vault]:
    """Open a ledger on PostgreSQL; the driver takes 0.1 s and 10 MB, which no other level needs."""
    from .postgres.opening import open_postgres  # noqa: PLC0415

    return open_postgres(url, key_file, **options)


def _fault_of_postgres(url: str, key_file: Path | None) -> str | None:
    from .postgres.opening import fault_of  # noqa: PLC0415

    return fault_of(url, key_file)


LEVELS: Final = (
    Level(
        scheme="off",
        forms=("off",),
        open=partial(_open_in_process, OffLedger),
        outlives_process=OffLedger.outlives_process,
        shared_by_workers=True,  # it answers every process as if the request were new
        shared_by_hosts=True,
        records=False,
    ),
    Level(
        scheme="memory:",
        forms=("memory:",),
        open=partial(_open_in_process, MemoryLedger),
        outlives_process=MemoryLedger.outlives_process,
        shared_by_workers=False,
        shared_by_hosts=False,
    ),
    Level(
        scheme=sqlite.SCHEME,
        forms=sqlite.FORMS,
        open=sqlite.open_sqlite,
        outlives_process=SqliteLedger.outlives_process,
        shared_by_workers=True,
        shared_by_hosts=False,  # WAL needs shared memory: https://sqlite.org/wal.html
        check_url=sqlite.check_url,
        check_place=sqlite.check_directory,
        fault_of=sqlite.fault_of,
        file_of=sqlite.path_of,
        secrets_of=sqlite.secrets_of,
    ),
    Level(
        scheme=postgres.SCHEME,
        forms=postgres.FORMS,
        open=_open_postgres,
        outlives_process=True,
        shared_by_workers=True,
        shared_by_hosts=True,
        needs_key_file=True,
        check_url=postgres.check_url,
        fault_of=_fault_of_postgres,
        server_of=postgres.where_of,
    ),
)
"""Every level, the one that promises least first."""


def level_of(url: str) -> Level:
    """Return the level that a LEDGER_URL names; raise ValueError."""
    for level in LEVELS:
        if level.check_url is None and url == level.scheme:
            return level
        if level.check_url is not None and url.startswith(level.scheme):
            level.check_url(url)
            return level
    raise ValueError(f"must be {forms(LEVELS)}")


def forms(levels: tuple[Level, ...], joined_by: str = "or") -> str:
    """Write the LEDGER_URLs of levels as one phrase: `a, b or c`."""
    *most, last = (form for level in levels for form in level.forms)
    return f"{', '.join(most)} {joined_by} {last}" if most else last


def place_of(url: str) -> str:
    """Return the file, or the database and its server, of a LEDGER_URL; never a password."""
    level = level_of(url)
    return level.server_of(url) or str(level.file_of(url) or level.name)
