"""Print requests as text or JSON, times and errors for the ledger commands."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from textwrap import indent

from ...ledger import Row, State
from ...ledger.marker import Marker

Facts = dict[str, object]


def facts(row: Row, now_ms: int) -> Facts:
    """Return the members of a row that people may see: no hash, and no sealed data."""
    ending, resolved = row.ending, row.resolved
    return {
        "client_id": row.key.client_id,
        "api": row.key.api,
        "request_id": row.key.request_id,
        "caller": row.caller,
        "state": str(State.IN_DOUBT if row.is_in_doubt(now_ms) else row.state),
        "attempts": row.attempts,
        "biz_time": None if row.biz_time_ms is None else moment_text(row.biz_time_ms),
        "created": moment_text(row.created_ms),
        "updated": moment_text(row.updated_ms),
        "change": row.change,
        "result_status": ending.result_status if ending else "",
        "result_code": ending.result_code if ending else "",
        "resolved": resolved
        and {"who": resolved.who, "when": moment_text(resolved.at_ms), "why": resolved.why},
    }


async def print_json(rows: AsyncIterator[Facts]) -> None:
    """Write the same text as `print_rows` does, row by row, because there may be a million rows."""
    written = 0
    async for row in rows:
        opening = "," if written else '{\n  "requests": ['
        # json.dumps with `indent` encodes in Python, not in C: use it for nested values only.
        members = (f'      "{name}": {_value(value)}' for name, value in row.items())
        print(opening, "    {\n" + ",\n".join(members) + "\n    }", sep="\n", end="")
        written += 1
    print("\n  ]\n}" if written else json.dumps({"requests": []}, indent=2))


def _value(value: object) -> str:
    nested = isinstance(value, dict)
    return indent(json.dumps(value, indent=2), " " * 6).lstrip() if nested else json.dumps(value)


def print_rows(rows: list[Facts], *, as_json: bool) -> None:
    """Print a few rows, as JSON or one member a line."""
    if as_json:
        print(json.dumps({"requests": rows}, indent=2))
        return
    for row in rows:
        resolved = row.pop("resolved")
        for name, value in row.items():
            print(f"{name}: {'' if value is None else value}")
        for name, value in (resolved if isinstance(resolved, dict) else {}).items():
            print(f"resolved {name}: {value}")
        print()


def say(args: argparse.Namespace, facts: Facts, lines: list[str]) -> int:
    """Print what a command has done, as JSON or as lines; return its exit status."""
    print(json.dumps(facts, indent=2) if args.json else "\n".join(lines))
    return 0


def about_marker(marker: Marker, fault: str) -> list[str]:
    """Return a line that says why a marker cannot be written, if it cannot."""
    if not fault:
        return []
    return [f"{marker.path} cannot be written ({fault}): an older copy of this ledger would be accepted"]


def about_restored(facts: Facts) -> list[str]:
    """Return the lines that say what a restored ledger knows, from the members that JSON has."""
    requests, in_doubt = facts["requests"], facts["in_doubt"]
    since, until = facts["unknown_from"], facts["unknown_until"]
    unknown = f"between {since} and {until}" if since else f"before {until}"
    return [
        f"the ledger {facts['ledger']} has {requests} requests, {in_doubt} of them in doubt",
        f"it does not know the request ids that were first used {unknown}",
        "ask AlipayHK about each BindAccount of that time before sending it again",
    ]


def moment_text(ms: int) -> str:
    """Format milliseconds since 1970 as every ledger command does."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def clock_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
