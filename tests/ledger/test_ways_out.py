"""Following the way out that a refusal names gives a ledger that `serve` opens."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.commands.exit_codes import EX_CONFIG
from service.commands.ledger import files as ledger_files
from service.commands.ledger import requests as ledger_commands
from service.ledger import LedgerFault
from service.ledger.opening import fault_of
from tests.ledger.levels import a_bind, ended, opened, sqlite_url

Directory = Path
Harm = Callable[[Directory], None]
NEW = ("init", "--new")
ACCEPT = ("restore",)
RESTORE = ("restore", "copy.db")


def run(directory: Path, *words: str) -> int:
    """Run a ledger command in a directory, as an operator does; return its exit status."""
    parser = argparse.ArgumentParser()
    add_parser = ledger_commands.configure(parser, lambda _: None)
    ledger_files.configure(add_parser, lambda _: None)
    args = parser.parse_args([word.replace("copy.db", f"{directory}/copy.db") for word in words])
    return ledger_files.run(args, sqlite_url(directory), None)


async def used(directory: Path) -> list[str]:
    """Apply a request, and close the ledger; return the ids that it has."""
    ledger, _ = opened(sqlite_url(directory))
    await ended(ledger, a_bind(f"id-{os.urandom(4).hex()}"))
    ids = [row.key.request_id async for row in ledger.rows()]
    await ledger.close()
    return ids


def move_away(*names: str) -> Harm:
    def move(directory: Directory) -> None:
        (lost := directory / "lost").mkdir(exist_ok=True)
        for name in names:
            if (directory / name).exists():
                (directory / name).rename(lost / name)

    return move


def database_is_garbage(directory: Directory) -> None:
    (directory / "ledger.db").write_bytes(os.urandom(9_000))


def database_is_cut_short(directory: Directory) -> None:
    os.truncate(directory / "ledger.db", 5_000)


def key_is_missing(directory: Directory) -> None:
    (directory / "ledger.db.key").unlink()


def key_is_damaged(directory: Directory) -> None:
    (directory / "ledger.db.key").write_text("damaged")


def marker_is_a_directory(directory: Directory) -> None:
    (directory / "ledger.db.key.ledgers").unlink()
    (directory / "ledger.db.key.ledgers").mkdir()


def marker_has_no_number(directory: Directory) -> None:
    text = (directory / "ledger.db.key.ledgers").read_text()
    (directory / "ledger.db.key.ledgers").write_text(text.replace('_token": 1', '_token": 1e999'))


KEY, MARKER = "ledger.db.key", "ledger.db.key.ledgers"


@pytest.mark.parametrize(
    ("harm", "before", "words", "named"),
    [
        (database_is_garbage, None, RESTORE, "ledger restore FILE"),
        (database_is_garbage, move_away("ledger.db"), NEW, "move it away and start a new one"),
        (database_is_cut_short, None, RESTORE, "ledger restore FILE"),
        (database_is_cut_short, move_away("ledger.db"), NEW, "move it away and start a new one"),
        (key_is_missing, move_away(KEY, "ledger.db"), NEW, "move key and ledger away and start"),
        (key_is_damaged, move_away(KEY, "ledger.db"), NEW, "move key and ledger away and start"),
        (marker_is_a_directory, move_away(MARKER), ACCEPT, "move it away and accept"),
        (marker_has_no_number, None, ACCEPT, "or accept the present ledger"),
    ],
)
def test_way_out_of_each_refusal_works(
    tmp_path: Path, harm: Harm, before: Harm | None, words: tuple[str, ...], named: str
) -> None:
    asyncio.run(used(tmp_path))
    assert run(tmp_path, "backup", "copy.db") == 0
    harm(tmp_path)
    fault = fault_of(sqlite_url(tmp_path), None)
    assert fault is not None
    assert named in fault
    with pytest.raises(LedgerFault) as raised:
        opened(sqlite_url(tmp_path))
    assert str(raised.value) == fault
    if before is not None:
        before(tmp_path)
    assert run(tmp_path, *words) == 0
    assert fault_of(sqlite_url(tmp_path), None) is None
    assert len(asyncio.run(used(tmp_path))) == (1 if words is NEW else 2)


def test_restore_of_an_impossible_file_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(used(tmp_path))
    assert run(tmp_path, "restore", "a" * 300) == EX_CONFIG
    assert "File name too long" in capsys.readouterr().err
