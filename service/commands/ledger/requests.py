"""`alipayhk-gateway ledger list`, `show`, `resolve` and `export`: commands on the ledger's requests.

Exit status: 0 done, 1 not found or not in doubt, 69 the ledger cannot be used now, 78 bad configuration,
141 the reader of the output has closed it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pwd
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from clients.alipayhk.api import API_NAMES

from ...ledger import Ending, Ledger, LedgerFault, LedgerUnavailable, Row, State
from ...ledger.levels import place_of
from ...ledger.opening import open_ledger
from ..exit_codes import EX_CONFIG, EX_UNAVAILABLE, fail
from .output import clock_ms, facts, moment_text, print_json, print_rows

NOT_DONE: Final = 1
READER_GONE: Final = 128 + signal.SIGPIPE
"""The exit status that a shell reports for a tool killed by SIGPIPE."""
WORDS_MAX: Final = 500
CHANGE_MAX: Final = 2**63 - 1

Command = Callable[[argparse.Namespace, Ledger], Awaitable[int]]
AddParser = Callable[..., argparse.ArgumentParser]
"""Adds a subcommand, like argparse's `add_parser`."""


def configure(
    parser: argparse.ArgumentParser, add_config: Callable[[argparse.ArgumentParser], None]
) -> AddParser:
    """Add the subcommands; return the function that adds more."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        add_config(added)
        added.add_argument("--json", action="store_true", help="write JSON")
        added.set_defaults(ledger_command=command)
        return added

    listed = add("list", _list, "list requests, the oldest update first")
    listed.add_argument("--in-doubt", action="store_true", help="only requests with an unknown outcome")
    show = add("show", _show, "show the requests with an id")
    show.add_argument("request_id", metavar="REQUEST_ID")
    resolve = add("resolve", _resolve, "record the outcome of a request in doubt, as a person found it out")
    resolve.add_argument("request_id", metavar="REQUEST_ID")
    outcome = resolve.add_mutually_exclusive_group(required=True)
    outcome.add_argument("--applied", action="store_true", help="AlipayHK applied it")
    outcome.add_argument("--rejected", action="store_true", help="AlipayHK did not apply it, and will not")
    resolve.add_argument("--reason", required=True, type=_words, help="the evidence, no personal data")
    resolve.add_argument("--api", choices=API_NAMES, help="the API, if several have this id")
    resolve.add_argument("--client-id", help="the client id, if several have this id")
    resolve.add_argument(
        "--who", type=_words, default=_os_user(), help="who found the outcome (default: %(default)s)"
    )
    export = add(
        "export", _export, "write the requests changed since a time or a change, one JSON object a line"
    )
    start = export.add_mutually_exclusive_group(required=True)
    start.add_argument("--since", type=_moment, metavar="TIME", help="ISO 8601; UTC if it has no offset")
    start.add_argument(
        "--after", type=_change, metavar="CHANGE", help="the last `change` of the previous export"
    )
    return commands.add_parser


def run(args: argparse.Namespace, ledger_url: str, key_file: Path | None) -> int:
    """Run one subcommand on a ledger; return its exit status."""
    try:
        ledger, _ = open_ledger(ledger_url, key_file, random_bytes=os.urandom, create=False)
    except LedgerFault as fault:
        return fail(str(fault), EX_CONFIG)
    except LedgerUnavailable as error:
        return fail(str(error), EX_UNAVAILABLE)
    args.where = place_of(ledger_url)
    try:
        status = asyncio.run(_on(ledger, args))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, closed the pipe. Python would report an error when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except LedgerUnavailable as error:
        return fail(str(error), EX_UNAVAILABLE)
    return status


async def _on(ledger: Ledger, args: argparse.Namespace) -> int:
    command: Command = args.ledger_command
    try:
        return await command(args, ledger)
    finally:
        await ledger.close()


async def _list(args: argparse.Namespace, ledger: Ledger) -> int:
    now_ms = clock_ms()
    rows = ledger.rows(in_doubt_at_ms=now_ms) if args.in_doubt else ledger.rows()
    if args.json:
        await print_json(facts(row, now_ms) async for row in rows)
        return 0
    count = 0
    async for row in rows:
        count += 1
        known = facts(row, now_ms)
        names = ("updated", "state", "attempts", "api", "client_id", "request_id", "caller", "result_code")
        print("  ".join(str(known[name] or "-") for name in names))
    print(f"{count} requests in {args.where}", file=sys.stderr)
    return 0


async def _show(args: argparse.Namespace, ledger: Ledger) -> int:
    rows = await _find(ledger, args.request_id)
    if not rows:
        return fail("no request has this id", NOT_DONE)
    print_rows([facts(row, clock_ms()) for row in rows], as_json=args.json)
    return 0


async def _resolve(args: argparse.Namespace, ledger: Ledger) -> int:
    row = _chosen(args, await _find(ledger, args.request_id))
    if isinstance(row, str):
        return fail(row, NOT_DONE)
    ending = Ending(State.APPLIED if args.applied else State.REJECTED, resolved_by_operator=True)
    done = await ledger.resolve(row.key, ending, who=args.who, why=args.reason, now_ms=clock_ms())
    rows = [found for found in await _find(ledger, args.request_id) if found.key == row.key]
    if not done:
        return fail(_why_not(rows), NOT_DONE)
    print_rows([facts(found, clock_ms()) for found in rows], as_json=args.json)
    return 0


async def _export(args: argparse.Namespace, ledger: Ledger) -> int:
    since_ms, after = args.since or 0, args.after or 0
    async for row in ledger.rows(since_ms=since_ms, after=after):
        print(json.dumps(facts(row, clock_ms())))
    return 0


async def _find(ledger: Ledger, request_id: str) -> Sequence[Row]:
    # Ids are printable ASCII. An argument of the command line may be no text, which SQLite would reject.
    return await ledger.find(request_id) if request_id.isascii() else ()


def _why_not(rows: Sequence[Row]) -> str:
    """Say why a person cannot resolve a request."""
    if not rows:
        return "no such request"
    (row,) = rows
    if row.state is State.SENDING:
        return f"this request is in progress until {moment_text(row.lease_until_ms)}: try again then"
    return f"this request is not in doubt: state {row.state} since {moment_text(row.updated_ms)}"


def _chosen(args: argparse.Namespace, rows: Sequence[Row]) -> Row | str:
    """Return the one row that the arguments select, or why there is no such row."""
    meant = [
        row
        for row in rows
        if args.api in {None, row.key.api} and args.client_id in {None, row.key.client_id}
    ]
    if len(meant) > 1:
        return "several requests have this id: name one with --api and --client-id"
    return meant[0] if meant else "no such request"


def _words(text: str) -> str:
    if not text.strip() or len(text) > WORDS_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(f"must be 1 to {WORDS_MAX} printable characters")
    return text


def _change(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > CHANGE_MAX:
        raise argparse.ArgumentTypeError("must be the `change` of an exported request, a whole number")
    return int(text)


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a time like 2026-03-01T08:00:00+08:00") from None
    # A time without an offset is UTC, like every time that these commands print.
    known = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (known - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


def _os_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
