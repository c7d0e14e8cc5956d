"""The verdict: whether the figures are reliable, and whether the gateway or the generator was the limit."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Final

from .plan import Plan
from .recording import BUSY
from .totals import Totals

LATE_SHARE_MAX: Final = 0.01


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a run."""

    kept_up: bool
    """Whether the generator started its calls on time, so that the figures are reliable."""
    saturated: bool
    """Whether the gateway could not keep up with the arrivals."""
    sentences: tuple[str, ...]


def verdict(plan: Plan, totals: Totals) -> Verdict:
    """Return the verdict on a run."""
    behind = list(_behind(plan, totals))
    dropped = totals.dropped - totals.dropped_by_generator
    sentences = [f"THE GENERATOR FELL BEHIND, so these figures are not reliable: {why}." for why in behind]
    if behind and totals.dropped:
        sentences.append(f"{dropped} of {totals.dropped} dropped arrivals were handled on time.")
    elif dropped:
        share = dropped / totals.due
        sentences.append(
            f"THE SERVER IS SATURATED: {dropped} of {totals.due} arrivals ({share:.1%}) were dropped,"
            f" because {plan.max_in_flight} calls were in flight; the generator was on time."
        )
    if not behind:
        sentences.append(
            "The generator kept up."
            if totals.due
            else "Nothing was measured: no call was due after the warm-up."
        )
    if totals.unfinished and not totals.interrupted:
        sentences.append(f"{totals.unfinished} calls had no result long after their deadline.")
    if plan.profile is None and statistics.fmean(totals.busy or [0.0]) >= BUSY:
        sentences.append(
            "The generator was at its limit: the gateway can probably serve more calls per second."
        )
    if plan.profile is None:
        sentences.append(
            "Closed loop: callers wait for responses, so a stall delays the next calls and hardly shows."
        )
    return Verdict(not behind, bool(dropped) and not behind, tuple(sentences))


def _behind(plan: Plan, totals: Totals) -> list[str]:
    bound_ms = plan.late_after * 1e3
    reasons = []
    overdue = totals.late + totals.dropped_by_generator
    if overdue > LATE_SHARE_MAX * totals.due:
        reasons.append(
            f"{overdue} of {totals.due} arrivals were more than {bound_ms:g} ms late,"
            " or were dropped while its event loop was at its limit"
        )
    if (lag_us := totals.lag.at(99)[0]) > plan.late_after * 1e6:
        reasons.append(f"its event loop woke {lag_us / 1e3:.1f} ms late at p99, more than {bound_ms:g} ms")
    if totals.processes_lost:
        reasons.append(f"{totals.processes_lost} of its {plan.processes} processes did not report")
    return reasons
