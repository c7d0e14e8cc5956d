"""The commands of `files` for a ledger on a PostgreSQL server.

Exit status: 0 done, 1 there is a ledger already, 64 another tool does this, 69 the server cannot be
reached, 78 bad configuration, or a ledger that cannot be used.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from ...ledger import LedgerFault, LedgerUnavailable
from ...ledger.postgres import administration
from ...ledger.postgres.opening import Place, place_of, wait_for
from ..exit_codes import EX_CONFIG, EX_UNAVAILABLE, EX_USAGE, fail
from .output import Facts, about_marker, about_restored, clock_ms, moment_text, say
from .requests import NOT_DONE

TIMEOUT_S: Final = 60.0
"""How long one statement may take; a migration of a large table takes long."""

Command = Callable[[argparse.Namespace, Place], Coroutine[Any, Any, int]]


def run(args: argparse.Namespace, ledger_url: str, key_file: Path | None) -> int:
    """Run one subcommand on a ledger; return its exit status."""
    name: str = args.ledger_command
    try:
        if name == "migrate":
            return wait_for(_migrate(args, ledger_url))
        return wait_for(COMMANDS[name](args, place_of(ledger_url, key_file, TIMEOUT_S)))
    except LedgerFault as fault:
        return fail(str(fault), EX_CONFIG)
    except LedgerUnavailable as error:
        return fail(str(error), EX_UNAVAILABLE)


async def _migrate(args: argparse.Namespace, url: str) -> int:
    done = await administration.migrate_schema(url, args.grant, TIMEOUT_S)
    lines = [f"the tables of {done.where} have version {done.after}, and had version {done.before} before"]
    lines += [f"{args.grant} may use them"] if args.grant else []
    facts: Facts = {
        "ledger": done.where,
        "version_before": done.before,
        "version": done.after,
        "granted": args.grant,
    }
    return say(args, facts, lines)


async def _init(args: argparse.Namespace, place: Place) -> int:
    created = await administration.create_first(place, os.urandom, is_new=args.new)
    if created is None:
        return fail(f"there is a ledger {place.where} already", NOT_DONE)
    facts: Facts = {"ledger": place.where, "ledger_id": created.ledger_id, "key_id": created.key_id}
    facts |= {"marker": None if created.marker_fault else str(place.marker.path)}
    lines = [f"created the ledger {place.where} without earlier requests"]
    return say(args, facts, [*lines, *about_marker(place.marker, created.marker_fault)])


async def _backup(_: argparse.Namespace, place: Place) -> int:
    return fail(f"back up {place.where} with pg_dump, or with the server's own backups", EX_USAGE)


async def _restore(args: argparse.Namespace, place: Place) -> int:
    if args.file is not None:
        return fail(
            "restore the database with pg_restore, then accept it with: alipayhk-gateway ledger restore",
            EX_USAGE,
        )
    done, until = await administration.accept(place, os.urandom), moment_text(clock_ms())
    since = None if done.newest_ms is None else moment_text(done.newest_ms)
    facts: Facts = {"ledger": place.where, "ledger_id": done.ledger_id, "requests": done.requests}
    facts |= {"in_doubt": done.in_doubt, "unknown_from": since, "unknown_until": until}
    return say(args, facts, [*about_restored(facts), *about_marker(place.marker, done.marker_fault)])


COMMANDS: Final[Mapping[str, Command]] = {"init": _init, "backup": _backup, "restore": _restore}
