"""`alipayhk-gateway ledger init`, `backup` and `restore`: commands on the whole ledger, in a file.

Exit status: 0 done, 1 there is a ledger already, 69 a process uses the ledger, 73 a file cannot be created,
78 bad configuration, or a ledger or backup that cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ...ledger import LedgerFault, LedgerUnavailable
from ...ledger.identity import Found, refuse_another
from ...ledger.marker import Entry
from ...ledger.opening import file_of, open_ledger
from ...ledger.sqlite.backup import back_up, move_log_aside, restore
from ...ledger.sqlite.file import name_of
from ...ledger.sqlite.inspection import inspect
from ...ledger.sqlite.opening import url_of
from ...ledger.sqlite.place import Place, file_errors_as_faults, lock_of, open_place
from ..exit_codes import EX_CANTCREAT, EX_CONFIG, EX_UNAVAILABLE, fail
from .output import Facts, about_marker, about_restored, clock_ms, moment_text, say
from .requests import NOT_DONE, AddParser

LOCK_TIMEOUT_S: Final = 1.0
"""Timeout for another process to release the ledger: it may be closing it."""

Command = Callable[[argparse.Namespace, Place], int]


def configure(add_parser: AddParser, add_config: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the subcommands, each with the options that `add_config` adds to name the settings."""

    def add(name: str, summary: str, more: str) -> argparse.ArgumentParser:
        added = add_parser(name, help=summary, description=f"{summary.capitalize()}. {more}")
        add_config(added)
        added.add_argument("--json", action="store_true", help="write JSON")
        added.set_defaults(ledger_command=name)
        return added

    init = add(
        "init",
        "create a new ledger",
        "Needed once, before the very first start, if the directory of the key cannot be written.",
    )
    init.add_argument(
        "--new",
        action="store_true",
        help="for a key that has had a ledger: keep the key and start without the records of that ledger",
    )
    backup = add(
        "backup",
        "write a consistent copy of the ledger, also while a gateway uses it",
        "The copy does not contain the key. An existing file is never overwritten.",
    )
    backup.add_argument("file", type=Path, metavar="FILE")
    restored = add(
        "restore",
        "replace the ledger by a backup, or accept the present file",
        "Stop the gateway first. The replaced file is kept under another name.",
    )
    restored.add_argument("file", type=Path, metavar="FILE", nargs="?")
    migrate = add(
        "migrate",
        "create or migrate the tables of a ledger on a server",
        "For a gateway whose user may not create tables: run it as a user who may.",
    )
    migrate.add_argument("--grant", metavar="USER", help="let this user use the tables")


def run(args: argparse.Namespace, ledger_url: str, key_file: Path | None) -> int:
    """Run one subcommand on a ledger; return its exit status."""
    command = COMMANDS.get(args.ledger_command)
    if command is None:
        return fail("the schema of a ledger in a file is migrated when a gateway opens it", NOT_DONE)
    try:
        return command(args, Place(file_of(ledger_url), key_file))
    except LedgerFault as fault:
        return fail(str(fault), EX_CONFIG)
    except LedgerUnavailable as error:
        return fail(str(error), EX_UNAVAILABLE)


def _init(args: argparse.Namespace, place: Place) -> int:
    path, marker = place.path, place.marker
    moved: tuple[Path, ...] = ()
    with lock_of(path) as lock, file_errors_as_faults(path, "created"):
        lock.acquire_alone(LOCK_TIMEOUT_S)
        found = inspect(path, is_unused=True)
        if isinstance(found, Found):
            lock.release()
            return fail(f"there is a ledger {path} already", NOT_DONE)
        if args.new:
            moved = move_log_aside(path, _aside())
        else:
            place.must_be_free(found, is_alone=True)
            if not place.makes_key:
                refuse_another(marker)
        ledger, vault = open_place(place, lock, os.urandom, needs_marker=False)
        entry = Entry(0, str(path))
        fault = marker.register(ledger.ledger_id, entry)
        asyncio.run(ledger.close())
    facts: Facts = {"ledger": str(path), "ledger_id": ledger.ledger_id, "key_id": vault.key_id}
    facts |= {"marker": None if fault else str(marker.path), "moved_aside": [str(file) for file in moved]}
    lines = [f"created the ledger {path} without earlier requests", *about_marker(place.marker, fault)]
    return say(args, facts, lines)


def _backup(args: argparse.Namespace, place: Place) -> int:
    ledger, _ = open_ledger(
        url_of(place.path), place.configured_key_file, random_bytes=os.urandom, create=False
    )
    target: Path = args.file.absolute()
    taken_ms = clock_ms()
    try:
        summary = back_up(place.path, target, taken_ms)
    except FileExistsError:
        return fail(f"{target} exists already and is not overwritten", EX_CANTCREAT)
    except OSError as error:
        return fail(f"{target} cannot be written: {error.strerror}", EX_CANTCREAT)
    except sqlite3.Error as error:
        return fail(f"{target} cannot be written: {name_of(error)}", EX_CANTCREAT)
    finally:
        asyncio.run(ledger.close())
    facts: Facts = {"file": str(target), "ledger_id": summary.ledger_id, "last_token": summary.token}
    facts |= {"requests": summary.requests, "in_doubt": summary.in_doubt, "taken": moment_text(taken_ms)}
    return say(
        args, facts, [f"wrote {target}: {summary.requests} requests, {summary.in_doubt} of them in doubt"]
    )


def _restore(args: argparse.Namespace, place: Place) -> int:
    path, backup = place.path, args.file
    with lock_of(path) as lock:
        with file_errors_as_faults(path, "restored"):
            if backup is not None and backup.exists() and path.exists() and backup.samefile(path):
                backup = None
            lock.acquire_alone(LOCK_TIMEOUT_S)
            done = restore(place, backup and backup.absolute(), clock_ms(), _aside())
        lock.release()
    summary, until = done.summary, moment_text(clock_ms())
    since_ms = summary.newest_ms if summary.backup_ms is None else summary.backup_ms
    since = None if since_ms is None else moment_text(since_ms)
    facts: Facts = {"ledger": str(path), "ledger_id": summary.ledger_id, "requests": summary.requests}
    facts |= {"in_doubt": summary.in_doubt, "unknown_from": since, "unknown_until": until}
    facts |= {"moved_aside": [str(file) for file in done.moved_aside]}
    kept = (f"kept the replaced file as {file}" for file in done.moved_aside)
    return say(args, facts, [*about_restored(facts), *kept, *about_marker(place.marker, done.marker_fault)])


COMMANDS: Final[Mapping[str, Command]] = {"init": _init, "backup": _backup, "restore": _restore}


def _aside() -> str:
    """Return the suffix for the name of a replaced file."""
    return datetime.fromtimestamp(time.time(), UTC).strftime(".before-%Y%m%dT%H%M%S.%fZ")
