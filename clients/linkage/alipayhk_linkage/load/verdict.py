"""Whether the figures can be believed, and what limited the run: the gateway, or the generator itself."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Final

from .plan import Plan
from .recording import BUSY
from .tally import Tally

LATE_SHARE_MAX: Final = 0.01


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to make of the run."""

    kept_up: bool
    """Whether the generator did all that it was to do, in time."""
    saturated: bool
    """Whether the gateway did not keep up with the arrivals."""
    sentences: tuple[str, ...]


def verdict(plan: Plan, tally: Tally) -> Verdict:
    """Judge a run."""
    behind = list(_behind(plan, tally))
    dropped = tally.dropped - tally.dropped_by_generator
    sentences = [f"THE GENERATOR FELL BEHIND, so do not trust these figures: {why}." for why in behind]
    if behind and tally.dropped:
        sentences.append(f"Of {tally.dropped} dropped arrivals {dropped} were looked at in time.")
    elif dropped:
        share = dropped / tally.due
        sentences.append(
            f"THE SERVER IS SATURATED: {dropped} of {tally.due} arrivals ({share:.1%}) found"
            f" {plan.max_in_flight} calls in flight and were dropped; the generator was in time."
        )
    if not behind:
        sentences.append(
            "The generator kept up."
            if tally.due
            else "Nothing was measured: no call was due after the warm-up."
        )
    if tally.unfinished and not tally.interrupted:
        sentences.append(f"{tally.unfinished} calls never ended, long after their deadline.")
    if plan.profile is None and statistics.fmean(tally.busy or [0.0]) >= BUSY:
        sentences.append("The generator was at its limit: the gateway may well do more calls a second.")
    if plan.profile is None:
        sentences.append(
            "Closed loop: callers wait for their answers, so a stall holds arrivals back and hardly shows."
        )
    return Verdict(not behind, bool(dropped) and not behind, tuple(sentences))


def _behind(plan: Plan, tally: Tally) -> list[str]:
    bound_ms = plan.late_after * 1e3
    reasons = []
    overdue = tally.late + tally.dropped_by_generator
    if overdue > LATE_SHARE_MAX * tally.due:
        reasons.append(
            f"{overdue} of {tally.due} arrivals were over {bound_ms:g} ms late,"
            " or were dropped while its loop was at its limit"
        )
    if (lag_us := tally.lag.at(99)[0]) > plan.late_after * 1e6:
        reasons.append(f"its loop woke {lag_us / 1e3:.1f} ms late at p99, over {bound_ms:g} ms")
    if tally.processes_lost:
        reasons.append(f"{tally.processes_lost} of its {plan.processes} processes did not report")
    return reasons
