"""Fixtures: an empty ledger of each level."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.ledger import Ledger
from tests.ledger.levels import URLS, opened, sqlite_url


@pytest.fixture(params=URLS)
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    """Return an empty ledger of each level that records."""
    ledger, _ = opened(URLS[request.param](tmp_path))
    yield ledger
    await ledger.close()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Ledger]:
    """Return an empty SQLite ledger, in ledger.db."""
    ledger, _ = opened(sqlite_url(tmp_path))
    yield ledger
    await ledger.close()
