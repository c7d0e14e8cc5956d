"""The common part of the commands that make one call: flags, output, and the exit status by outcome."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from .client import TIMEOUT_S, BlockingLinkageClient
from .connection import Connection, UsageError, add_connection_flags, connection_of
from .errors import LinkageError, Outcome, Retry
from .hints import HAPPENED, NEXT, hints
from .reachability import causes
from .request_flags import add_request_flags, request_from_json, request_of

EX_UNAVAILABLE: Final = 69
"""The exit status without a connection, as in sysexits.h. The call was not made."""
PATIENCE_S: Final = 1.0
"""How long to connect again after the first failure, about as long as gRPC's retry policy does."""
EXITS: Final = {Outcome.NOT_SENT: 10, Outcome.REJECTED: 11, Outcome.UNKNOWN: 12}
"""The exit status by outcome; 0 is OK."""
INTERRUPTED: Final = 130
EPILOG: Final = (
    "Exit status: 0 OK, 10 not_sent, 11 rejected, 12 unknown, 64 wrong command line, "
    "69 no connection to the gateway (this call sent nothing), 130 interrupted by Ctrl-C (if the call "
    "was made, the outcome is unknown)."
)

_CONTROLS: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories: control, format (among them the direction), surrogate, line and paragraph."""

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
    deadline_s, made = time.monotonic() + args.timeout, False
    with BlockingLinkageClient(
        connection.target,
        tls=connection.tls,
        retries=not args.no_retry,
        shared_ledger=connection.shared_ledger,
    ) as client:
        try:
            if not client.connect(timeout_s=args.timeout, patience_s=0 if args.no_retry else PATIENCE_S):
                _write_error(args, _not_connected(connection))
                return EX_UNAVAILABLE
            made = True
            response = method(client)(message, timeout_s=deadline_s - time.monotonic())
        except LinkageError as error:
            _write_error(args, error)
            return EXITS[error.outcome]
        except KeyboardInterrupt:
            happened = HAPPENED[Outcome.UNKNOWN if made else Outcome.NOT_SENT]
            print(f"Interrupted. {happened} {NEXT[Retry.SAME_REQUEST_ID]}.", file=sys.stderr)
            return INTERRUPTED
    found = json_format.MessageToDict(response, preserving_proto_field_name=True)
    if args.json:
        _write(json.dumps({"outcome": "OK", "code": "OK", "response": found}))
    else:
        _write("\n".join(["OK: AlipayHK accepted the request.", *_lines(found)]))
    return 0


def _not_connected(connection: Connection) -> LinkageError:
    """Return the error of a call that was not made. It has no reason, because no gateway reported it."""
    found = "; ".join(causes(connection))
    sentence = f"There is no connection to the gateway at {connection.target}: {found}"
    return LinkageError(grpc.StatusCode.UNAVAILABLE, sentence, outcome=Outcome.NOT_SENT)


def _write_error(args: argparse.Namespace, error: LinkageError) -> None:
    _write(json.dumps(_error_as_json(error)) if args.json else _error_as_text(error))


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
            f"{title}: {_printable(error.sentence)}",
            *(f"  {fault.field}: {_printable(fault.description)}" for fault in error.violations),
            f"  outcome: {error.outcome}",
            f"  retry: {error.retry}",
            *(f"  {name}: {_printable(text)}" for name, text in more.items()),
            hints(error),
        ]
    )


def _lines(found: dict[str, Any], prefix: str = "  ") -> list[str]:
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{prefix}{name}.")
        else:
            text = json.dumps(value) if isinstance(value, bool) else _printable(str(value))
            lines.append(f"{prefix}{name}: {text}")
    return lines


def _printable(text: str) -> str:
    """Escape line breaks, and characters that control a terminal or the direction of text.

    AlipayHK chooses this text. Unescaped, it could forge lines of the output.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _CONTROLS
        else character
        for character in text
    )
