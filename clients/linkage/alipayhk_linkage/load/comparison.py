"""Compare this run with the JSON report of an earlier run (the base), allowing for chance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from . import intervals
from .encoding import decode
from .histogram import Histogram
from .intervals import Estimate
from .recording import Group
from .totals import Totals

SCHEMA: Final = "alipayhk-load/1"
MAY_DIFFER: Final = ("target", "tls", "seed")
"""Settings that do not affect whether two runs are comparable."""


@dataclass(frozen=True, slots=True)
class Base:
    """The part of an earlier report that a comparison needs."""

    run: str
    started_at: str
    settings: Mapping[str, Any]
    seconds: list[Histogram]
    """The latency of successes in each second."""
    failed: int
    of: int
    """Failed and successful calls together."""
    trusted: bool
    """Whether the generator kept up."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in the base run and in this run."""

    base: float
    now: float
    difference: Estimate
    tolerated: float
    """The largest acceptable lower bound of the difference."""

    @property
    def worse(self) -> bool:
        """Whether the figure is worse by more than the tolerance, at 95 % confidence."""
        return self.difference.low > self.tolerated


@dataclass(frozen=True, slots=True)
class Comparison:
    """The changes of p99 and of the error rate, and the settings that differ."""

    base: Base
    p99_us: Change
    error_rate: Change
    differs: tuple[str, ...]


def read_base(path: str) -> Base:
    """Read an earlier JSON report; raise ValueError if the file is not one."""
    try:
        report = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not JSON") from None
    try:
        if report["schema"] != SCHEMA:
            raise ValueError("schema")
        arrivals = report["arrivals"]
        counts = (report["error"]["count"], arrivals["dropped"], arrivals["unfinished"])
        succeeded = report["success"]["count"]
        if any(not isinstance(count, int) or count < 0 for count in (*counts, succeeded)):
            raise ValueError("counts")
        failed = sum(counts)
        return Base(
            run=str(report["run"]["id"]),
            started_at=str(report["run"]["started_at"]),
            settings=dict(report["settings"]),
            seconds=[read_histogram(second["latency"]) for second in report["seconds"]],
            failed=failed,
            of=failed + succeeded,
            trusted=bool(report["verdict"]["kept_up"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise ValueError(f"{path} is not a report of `alipayhk-client load --json`") from None


def read_histogram(written: Mapping[str, Any]) -> Histogram:
    """Read a histogram from a report."""
    return decode(written["histogram"], max_us=int(written["max_us"]), sum_us=int(written["sum_us"]))


def compare(base: Base, totals: Totals, settings: Mapping[str, Any], tolerance: float) -> Comparison:
    """Compare a run with the base. `tolerance` is the accepted increase of p99, relative to the base."""
    base_p99 = intervals.percentile(base.seconds, 99)
    p99 = intervals.percentile([second.latency for second in totals.seconds.values()], 99)
    failed, of = failures(totals)
    base_errors, errors = intervals.rate(base.failed, base.of), intervals.rate(failed, of)
    return Comparison(
        base,
        Change(base_p99.value, p99.value, intervals.difference(base_p99, p99), tolerance * base_p99.value),
        Change(base_errors.value, errors.value, intervals.difference(base_errors, errors), 0.0),
        tuple(_differs(base.settings, settings)),
    )


def failures(totals: Totals) -> tuple[int, int]:
    """Return the number of failed calls and of all calls. Dropped and unfinished calls count as failed."""
    failed = totals.count(Group.ERROR) + totals.dropped + totals.unfinished
    return failed, failed + totals.count(Group.SUCCESS)


def _differs(base: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = sorted({*base, *now} - {*MAY_DIFFER})
    return [
        f"{name}: {base.get(name)!s} in the base run, {now.get(name)!s} now"
        for name in names
        if base.get(name) != now.get(name)
    ]
