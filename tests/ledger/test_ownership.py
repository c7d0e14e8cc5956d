"""Files that root creates with ledger commands can be used by the gateway's user."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from service.commands.ledger import files as ledger_files
from service.commands.ledger import requests as ledger_commands
from tests.ledger.levels import a_bind, ended, opened, sqlite_url
from tests.ledger.processes import NOBODY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a directory of the gateway's user."""
    (place := tmp_path / "place").mkdir()
    os.chown(place, NOBODY, NOBODY)
    return place


def run_by_root(place: Path, *words: str | Path) -> None:
    parser = argparse.ArgumentParser()
    add_parser = ledger_commands.configure(parser, lambda _: None)
    ledger_files.configure(add_parser, lambda _: None)
    args = parser.parse_args([*map(str, words)])
    module = ledger_files if isinstance(args.ledger_command, str) else ledger_commands
    assert module.run(args, sqlite_url(place), None) == 0


def of_others(place: Path) -> list[str]:
    """Return the files that other users own."""
    return [path.name for path in place.iterdir() if path.stat().st_uid != NOBODY]


def test_ledger_created_by_root_belongs_to_the_owner_of_its_directory(place: Path) -> None:
    run_by_root(place, "init")
    assert len(list(place.iterdir())) == 4
    assert of_others(place) == []


async def test_marker_written_by_root_keeps_its_owner(place: Path) -> None:
    for _ in range(2):
        ledger, _ = opened(sqlite_url(place))
        await ended(ledger, a_bind(os.urandom(4).hex()))
        await ledger.close()
        assert of_others(place) == []
        os.chown(place / "ledger.db.key.ledgers", 0, 0)


def test_backup_restored_by_root_belongs_to_the_ledgers_owner(place: Path, tmp_path: Path) -> None:
    run_by_root(place, "init")
    run_by_root(place, "backup", tmp_path / "copy.db")
    for directory_owner in (NOBODY, 0):
        os.chown(place, directory_owner, directory_owner)
        run_by_root(place, "restore", tmp_path / "copy.db")
        assert of_others(place) == []
    assert (tmp_path / "copy.db").stat().st_uid == 0
