"""Gates: conditions that a run must meet, for use in CI."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .comparison import Comparison, failures
from .recording import Group
from .text_report import ms
from .totals import Totals


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition, whether it is met, and a sentence with the figures."""

    name: str
    passed: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits from the command line; None for a gate that is not used."""

    p99: float | None = None
    """In seconds."""
    error_rate: float | None = None
    """0 to 1."""


def gates(limits: Limits, totals: Totals, comparison: Comparison | None) -> list[Gate]:
    """Check every gate that is used."""
    found = []
    if limits.p99 is not None:
        found.append(_p99(limits.p99, totals))
    if limits.error_rate is not None:
        failed, of = failures(totals)
        share = failed / of if of else 1.0
        sentence = (
            f"{failed} of {of} calls failed or were dropped, {share:.3%}; at most {limits.error_rate:.3%}"
        )
        found.append(Gate("--max-error-rate", share <= limits.error_rate, sentence))
    if comparison is not None:
        found += _no_worse(comparison)
    return found


def _p99(limit: float, totals: Totals) -> Gate:
    """Check p99. Dropped and unfinished calls count as slower than any other, or p99 would be too good."""
    latency = totals.latency(Group.SUCCESS)
    lost = totals.dropped + totals.unfinished
    rank = max(1, math.ceil(0.99 * (latency.count + lost)))
    if rank > latency.count:
        few = "more than 1 % of the calls never succeeded" if latency.count else "no call succeeded"
        sentence = f"{few}; at most {limit * 1e3:g} ms"
        return Gate("--max-p99", passed=False, sentence=sentence)
    p99_us = latency.at(100 * rank / latency.count)[0]
    counting = f", with {lost} dropped or unfinished calls counted as slower" if lost else ""
    sentence = f"p99 is {ms(p99_us)} ms{counting}; at most {limit * 1e3:g} ms"
    return Gate("--max-p99", p99_us <= limit * 1e6, sentence)


def _no_worse(comparison: Comparison) -> list[Gate]:
    p99, errors = comparison.p99_us, comparison.error_rate
    value, low, high = (
        f"{'+' if us >= 0 else '-'}{ms(abs(us))}"
        for us in (p99.difference.value, p99.difference.low, p99.difference.high)
    )
    by_p99 = (
        f"p99 {ms(p99.base)} ms in the base run, {ms(p99.now)} ms now:"
        f" {value} ms, 95 % interval {low} to {high} ms;"
        f" its lower bound must be at most {ms(p99.tolerated)} ms"
    )
    by_errors = (
        f"errors {errors.base:.3%} in the base run, {errors.now:.3%} now: 95 % interval of the difference"
        f" {errors.difference.low:+.3%} to {errors.difference.high:+.3%}; its lower bound must be at most 0"
    )
    if not p99.now:
        by_p99 = "no call succeeded, so there is no p99 to compare"
    found = [
        Gate("--compare p99", bool(p99.now) and not p99.worse, by_p99),
        Gate("--compare errors", not errors.worse, by_errors),
    ]
    if not comparison.base.trusted:
        sentence = "the generator fell behind in the base run: compare with a run in which it kept up"
        found.append(Gate("--compare base", passed=False, sentence=sentence))
    return found
