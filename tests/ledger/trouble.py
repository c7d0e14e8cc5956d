"""Faults of a ledger's file while it is in use."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def locked(file: Path) -> Iterator[sqlite3.Connection]:
    """Hold the write lock like another process."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield other


@contextmanager
def removed(file: Path) -> Iterator[None]:
    """Rename the file inside the block, and restore its name afterwards."""
    away = file.with_name("away.db")
    file.rename(away)
    yield
    away.rename(file)
