"""One run from the flags to the exit status."""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ..connection import Misuse
from .comparison import compare
from .document import document, settings, write
from .flags import Asking, asking_of
from .gates import gates
from .page import page
from .panel import Panel
from .processes import NotStartedError, Processes, UnreachableError
from .tally import Tally
from .text import text
from .verdict import verdict
from .verification import Verification, verify

WELL: Final = 0
FAILED: Final = 1
"""A gate failed, --verify found something, or a report could not be written."""
FELL_BEHIND: Final = 3
UNREACHABLE: Final = 69
"""There was no gateway to put under load: EX_UNAVAILABLE in sysexits.h."""
INTERRUPTED: Final = 130
SETTLE_S: Final = 1.0
"""What a caller gave up may still be on its way to AlipayHK."""


def run(args: argparse.Namespace) -> int:
    """Make the run and its reports; return the exit status."""
    asking = asking_of(args)
    _must_be_writable(asking)
    tally, started_at = Tally(), datetime.now(UTC)
    panel = Panel(asking.plan, sys.stderr)
    try:
        Processes(asking.plan).run(tally, panel.look)
    except UnreachableError as error:
        sys.stderr.write(f"alipayhk-client: no gateway can be reached at {error}\n")
        return UNREACHABLE
    except NotStartedError as error:
        sys.stderr.write(f"alipayhk-client: {error}\n")
        return FELL_BEHIND
    finally:
        panel.close()
    report = _judge(asking, tally, started_at)
    status = int(report["verdict"]["exit_status"])
    return status if _publish(asking, report) else status or FAILED


def _judge(asking: Asking, tally: Tally, started_at: datetime) -> dict[str, Any]:
    plan, verified = asking.plan, _verified(asking, tally)
    judged = verdict(plan, tally)
    compared = compare(asking.base, tally, settings(plan), asking.tolerance) if asking.base else None
    checked = gates(asking.limits, tally, compared)
    if tally.interrupted:
        status = INTERRUPTED
    elif not judged.kept_up:
        status = FELL_BEHIND
    else:
        well = all(gate.passed for gate in checked) and (verified is None or verified.well)
        status = WELL if well else FAILED
    return document(
        plan,
        tally,
        judged,
        started_at=started_at,
        checked=checked,
        compared=compared,
        verified=verified,
        status=status,
    )


def _verified(asking: Asking, tally: Tally) -> Verification | None:
    if asking.verify is None:
        return None
    try:
        if any(told.outcome == "unknown" for told in tally.told):
            time.sleep(SETTLE_S)
        return verify(asking.verify, asking.plan.run, tally.told)
    except KeyboardInterrupt:
        tally.interrupted = True
        return Verification(0, {}, 0, (), "it was interrupted")


def _must_be_writable(asking: Asking) -> None:
    """Find out before the run, not after it."""
    faults = []
    for flag, name in _files(asking):
        path = Path(name)
        was_there = path.exists() or path.is_symlink()
        try:
            with path.open("a", encoding="utf-8"):
                pass
            if not was_there:
                path.unlink()
        except OSError as error:
            faults.append(f"{flag}: {name} cannot be written: {error.strerror}")
    if faults:
        raise Misuse("\n".join(faults))


def _files(asking: Asking) -> list[tuple[str, str]]:
    files = [("--json", "" if asking.json == "-" else asking.json), ("--html", asking.html)]
    return [(flag, name) for flag, name in files if name]


def _publish(asking: Asking, report: dict[str, Any]) -> bool:
    """Write every report; where one cannot be written, say so and write the others all the same."""
    faults = []
    for flag, name in _files(asking):
        try:
            Path(name).write_text(write(report) if flag == "--json" else page(report), "utf-8")
        except OSError as error:
            faults.append(f"{flag}: {name} cannot be written: {error.strerror}")
    try:
        sys.stdout.write(write(report) if asking.json == "-" else text(report))
        sys.stdout.flush()
    except OSError as error:
        # What is still in its buffer would be tried again, and fail again, at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        faults.append(f"the report cannot be written: {error.strerror}")
    sys.stderr.write("".join(f"alipayhk-client: {fault}\n" for fault in faults))
    return not faults
