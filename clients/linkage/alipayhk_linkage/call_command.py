"""The common part of the commands that make one call: flags, output, and the exit status by outcome."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message

from .client import TIMEOUT_S, BlockingLinkageClient
from .connection import UsageError, add_connection_flags, connection_of
from .errors import LinkageError, Outcome, Retry
from .hints import HAPPENED, NEXT, hints
from .request_flags import add_request_flags, request_from_json, request_of

EXITS: Final = {Outcome.NOT_SENT: 10, Outcome.REJECTED: 11, Outcome.UNKNOWN: 12}
"""The exit status by outcome; 0 is OK."""
INTERRUPTED: Final = 130
EPILOG: Final = (
    "Exit status: 0 OK, 10 not_sent, 11 rejected, 12 unknown, 64 wrong command line, "
    "130 interrupted by Ctrl-C (the outcome is unknown)."
)

Call = Callable[..., Message]


def configure(parser: argparse.ArgumentParser, request: type[Message]) -> None:
    """Add the flags."""
    parser.epilog = EPILOG
    add_request_flags(parser, request)
    add_connection_flags(parser)
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT_S,
        metavar="S",
        help="the deadline in seconds (default: %(default)g)",
    )
    parser.add_argument(
        "--no-retry", action="store_true", help="try once, even if the gateway asks for a retry"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(
    args: argparse.Namespace, request: type[Message], method: Callable[[BlockingLinkageClient], Call]
) -> int:
    """Make the call and print its result; return the exit status."""
    connection = connection_of(args)
    if not args.timeout > 0:
        raise UsageError("--timeout: must be more than 0 seconds")
    message = request_of(args, request)
    if message is None:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError(
                "give the request's fields as flags, or the whole request as JSON on standard input"
            )
        message = request_from_json(sys.stdin.buffer.read(), request)
    with BlockingLinkageClient(connection.target, tls=connection.tls, retries=not args.no_retry) as client:
        try:
            response = method(client)(message, timeout_s=args.timeout)
        except LinkageError as error:
            _write(json.dumps(_error_as_json(error)) if args.json else _error_as_text(error))
            return EXITS[error.outcome]
        except KeyboardInterrupt:
            next_step = NEXT[Retry.SAME_REQUEST_ID]
            print(f"Interrupted. {HAPPENED[Outcome.UNKNOWN]} {next_step}.", file=sys.stderr)
            return INTERRUPTED
    found = json_format.MessageToDict(response, preserving_proto_field_name=True)
    if args.json:
        _write(json.dumps({"outcome": "OK", "code": "OK", "response": found}))
    else:
        _write("\n".join(["OK: AlipayHK accepted the request.", *_lines(found)]))
    return 0


def _write(text: str) -> None:
    """Write to standard output. If that fails, report it; the exit status still gives the outcome."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # some locales cannot encode Chinese names
    try:
        print(text, flush=True)
    except OSError as error:
        # Python flushes the rest of the buffer at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"alipayhk-client: standard output: {error.strerror}", file=sys.stderr)


def _error_as_json(error: LinkageError) -> dict[str, Any]:
    return {
        "outcome": error.outcome,
        "code": error.code.name,
        "reason": error.reason,
        "retry": error.retry,
        "retry_after_s": error.retry_after_s,
        "message": error.sentence,
        "advice": hints(error),
        "request_id": error.request_id,
        "metadata": dict(error.metadata),
        "violations": [
            {"field": fault.field, "description": fault.description} for fault in error.violations
        ],
    }


def _error_as_text(error: LinkageError) -> str:
    title = f"{error.code.name} {error.reason}".rstrip()
    more = {name: text for name, text in sorted(error.metadata.items()) if name not in {"outcome", "retry"}}
    return "\n".join(
        [
            f"{title}: {error.sentence}",
            *(f"  {fault.field}: {fault.description}" for fault in error.violations),
            f"  outcome: {error.outcome}",
            f"  retry: {error.retry}",
            *(f"  {name}: {text}" for name, text in more.items()),
            hints(error),
        ]
    )


def _lines(found: dict[str, Any], prefix: str = "  ") -> list[str]:
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{prefix}{name}.")
        else:
            lines.append(f"{prefix}{name}: {json.dumps(value) if isinstance(value, bool) else value}")
    return lines
