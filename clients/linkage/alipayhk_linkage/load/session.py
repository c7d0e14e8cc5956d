"""One run, from the flags to the exit status."""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ..connection import Connection, UsageError
from ..reachability import causes
from .comparison import compare
from .document import document, settings, write
from .flags import Options, options_of
from .gates import gates
from .html_report import html_report
from .live_panel import LivePanel
from .processes import NotStartedError, Processes, UnreachableError
from .text_report import text_report
from .totals import Totals
from .verdict import verdict
from .verification import Verification, verify

PASSED: Final = 0
FAILED: Final = 1
"""A gate failed, --verify found a discrepancy, or a report could not be written."""
FELL_BEHIND: Final = 3
UNREACHABLE: Final = 69
"""No gateway can be reached: EX_UNAVAILABLE in sysexits.h."""
INTERRUPTED: Final = 130
SETTLE_S: Final = 1.0
"""The wait before --verify: requests of cancelled calls can still be on their way to AlipayHK."""


def run(args: argparse.Namespace) -> int:
    """Run the load test, and write its reports; return the exit status."""
    options = options_of(args)
    _check_writable(options)
    totals, started_at = Totals(), datetime.now(UTC)
    panel = LivePanel(options.plan, sys.stderr)
    try:
        Processes(options.plan).run(totals, panel.update)
    except UnreachableError as error:
        found = "; ".join(causes(Connection(str(error), options.plan.tls)))
        sys.stderr.write(f"alipayhk-client: no gateway can be reached at {error}: {found}\n")
        return UNREACHABLE
    except NotStartedError as error:
        sys.stderr.write(f"alipayhk-client: {error}\n")
        return FELL_BEHIND
    finally:
        panel.close()
    report = _judge(options, totals, started_at)
    status = int(report["verdict"]["exit_status"])
    return status if _publish(options, report) else status or FAILED


def _judge(options: Options, totals: Totals, started_at: datetime) -> dict[str, Any]:
    plan, verified = options.plan, _verified(options, totals)
    judged = verdict(plan, totals)
    compared = compare(options.base, totals, settings(plan), options.tolerance) if options.base else None
    checked = gates(options.limits, totals, compared)
    if totals.interrupted:
        status = INTERRUPTED
    elif not judged.kept_up:
        status = FELL_BEHIND
    else:
        passed = all(gate.passed for gate in checked) and (verified is None or verified.passed)
        status = PASSED if passed else FAILED
    return document(
        plan,
        totals,
        judged,
        started_at=started_at,
        checked=checked,
        compared=compared,
        verified=verified,
        status=status,
    )


def _verified(options: Options, totals: Totals) -> Verification | None:
    if options.verify is None:
        return None
    try:
        if any(one.outcome == "unknown" for one in totals.reported):
            time.sleep(SETTLE_S)
        return verify(options.verify, options.plan.run, totals.reported)
    except KeyboardInterrupt:
        totals.interrupted = True
        return Verification(0, {}, 0, (), "the verification was interrupted")


def _check_writable(options: Options) -> None:
    """Raise UsageError before the run if a report cannot be written after it."""
    faults = []
    for flag, name in _files(options):
        path = Path(name)
        existed = path.exists() or path.is_symlink()
        try:
            with path.open("a", encoding="utf-8"):
                pass
            if not existed:
                path.unlink()
        except OSError as error:
            faults.append(f"{flag}: {name} cannot be written: {error.strerror}")
    if faults:
        raise UsageError("\n".join(faults))


def _files(options: Options) -> list[tuple[str, str]]:
    files = [("--json", "" if options.json == "-" else options.json), ("--html", options.html)]
    return [(flag, name) for flag, name in files if name]


def _publish(options: Options, report: dict[str, Any]) -> bool:
    """Write all reports. Report each one that cannot be written, and return whether all were written."""
    faults = []
    for flag, name in _files(options):
        try:
            Path(name).write_text(write(report) if flag == "--json" else html_report(report), "utf-8")
        except OSError as error:
            faults.append(f"{flag}: {name} cannot be written: {error.strerror}")
    try:
        sys.stdout.write(write(report) if options.json == "-" else text_report(report))
        sys.stdout.flush()
    except OSError as error:
        # Python flushes the rest of the buffer at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        faults.append(f"the report cannot be written: {error.strerror}")
    sys.stderr.write("".join(f"alipayhk-client: {fault}\n" for fault in faults))
    return not faults
