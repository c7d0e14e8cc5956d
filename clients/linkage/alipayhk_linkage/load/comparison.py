"""This run beside an earlier one's JSON report: what changed, and whether chance explains it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from . import intervals
from .encoding import decode
from .intervals import Estimate
from .recording import Group
from .spread import Spread
from .tally import Tally

SCHEMA: Final = "alipayhk-load/1"
BESIDE: Final = ("target", "tls", "seed")
"""Settings in which runs may differ and be comparable all the same."""


@dataclass(frozen=True, slots=True)
class Base:
    """What is needed of an earlier report."""

    run: str
    started_at: str
    settings: Mapping[str, Any]
    seconds: list[Spread]
    failed: int
    of: int
    trusted: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A figure then and now."""

    base: float
    now: float
    difference: Estimate
    tolerated: float
    """How far the lower end of the difference may lie above 0."""

    @property
    def worse(self) -> bool:
        """Whether it is worse by more than is tolerated, and chance does not explain it."""
        return self.difference.low > self.tolerated


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both figures, and what else is different."""

    base: Base
    p99_us: Change
    error_rate: Change
    differs: tuple[str, ...]


def read_base(path: str) -> Base:
    """Read an earlier report; raise ValueError where it is none."""
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
            seconds=[read_spread(second["latency"]) for second in report["seconds"]],
            failed=failed,
            of=failed + succeeded,
            trusted=bool(report["verdict"]["kept_up"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise ValueError(f"{path} is not a report of `alipayhk-client load --json`") from None


def read_spread(written: Mapping[str, Any]) -> Spread:
    """Read a spread as reports have it."""
    return decode(written["histogram"], max_us=int(written["max_us"]), sum_us=int(written["sum_us"]))


def compare(base: Base, tally: Tally, settings: Mapping[str, Any], tolerance: float) -> Comparison:
    """Compare a run with the base."""
    then = intervals.percentile(base.seconds, 99)
    now = intervals.percentile([second.latency for second in tally.seconds.values()], 99)
    failed, of = failures(tally)
    errors_then, errors_now = intervals.rate(base.failed, base.of), intervals.rate(failed, of)
    return Comparison(
        base,
        Change(then.value, now.value, intervals.difference(then, now), tolerance * then.value),
        Change(errors_then.value, errors_now.value, intervals.difference(errors_then, errors_now), 0.0),
        tuple(_differs(base.settings, settings)),
    )


def failures(tally: Tally) -> tuple[int, int]:
    """Return how many calls failed, of how many: a caller who is turned away or never answered did fail."""
    failed = tally.count(Group.ERROR) + tally.dropped + tally.unfinished
    return failed, failed + tally.count(Group.SUCCESS)


def _differs(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = sorted({*then, *now} - {*BESIDE})
    return [
        f"{name}: {then.get(name)!s} then, {now.get(name)!s} now"
        for name in names
        if then.get(name) != now.get(name)
    ]
