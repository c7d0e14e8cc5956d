"""Functions of the schema with one piece of their source replaced, for tests that plant faults."""

from __future__ import annotations

import re
from typing import Final

from service.ledger.postgres.statements import MIGRATIONS

SCHEMA: Final = "\n".join(path.read_text() for path in MIGRATIONS)

Piece = tuple[str, str]
"""A piece of a source, and what replaces it."""


def edited_function(name: str, *pieces: Piece) -> str:
    """Return a statement that replaces a function of the schema; each piece must occur exactly once."""
    (source,) = re.findall(rf"CREATE (FUNCTION alipayhk_{name}\(.*?\n\$\$;)\n", SCHEMA, re.DOTALL)
    for before, after in pieces:
        if source.count(before) != 1:
            raise LookupError(f"{before!r} occurs {source.count(before)} times in alipayhk_{name}")
        source = source.replace(before, after)
    return f"CREATE OR REPLACE {source}"
