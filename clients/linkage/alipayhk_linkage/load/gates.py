"""What a run must keep to, for CI."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .comparison import Comparison, failures
from .recording import Group
from .tally import Tally
from .text import ms


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition, and whether it holds."""

    name: str
    passed: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Limits:
    """The conditions that were asked for."""

    p99: float | None = None
    """Seconds."""
    error_rate: float | None = None


def gates(limits: Limits, tally: Tally, comparison: Comparison | None) -> list[Gate]:
    """Check every condition that was asked for."""
    found = []
    if limits.p99 is not None:
        found.append(_p99(limits.p99, tally))
    if limits.error_rate is not None:
        failed, of = failures(tally)
        share = failed / of if of else 1.0
        sentence = (
            f"{failed} of {of} calls failed or were dropped, {share:.3%}; at most {limits.error_rate:.3%}"
        )
        found.append(Gate("--max-error-rate", share <= limits.error_rate, sentence))
    if comparison is not None:
        found += _no_worse(comparison)
    return found


def _p99(limit: float, tally: Tally) -> Gate:
    """Check p99; what was dropped or never ended counts as slower than anything, or it would flatter."""
    latency = tally.latency(Group.SUCCESS)
    endless = tally.dropped + tally.unfinished
    rank = max(1, math.ceil(0.99 * (latency.count + endless)))
    if rank > latency.count:
        few = "over 1 % of the calls never succeeded" if latency.count else "no call succeeded"
        sentence = f"{few}; at most {limit * 1e3:g} ms"
        return Gate("--max-p99", passed=False, sentence=sentence)
    p99_us = latency.at(100 * rank / latency.count)[0]
    counting = f", the {endless} dropped counted as slower" if endless else ""
    sentence = f"p99 is {ms(p99_us)} ms{counting}; at most {limit * 1e3:g} ms"
    return Gate("--max-p99", p99_us <= limit * 1e6, sentence)


def _no_worse(comparison: Comparison) -> list[Gate]:
    p99, errors = comparison.p99_us, comparison.error_rate
    value, low, high = (
        f"{'+' if us >= 0 else '-'}{ms(abs(us))}"
        for us in (p99.difference.value, p99.difference.low, p99.difference.high)
    )
    by_p99 = (
        f"p99 {ms(p99.base)} ms then, {ms(p99.now)} ms now:"
        f" {value} ms, 95 % interval {low} to {high} ms;"
        f" it may begin at most {ms(p99.tolerated)} ms above 0"
    )
    by_errors = (
        f"errors {errors.base:.3%} then, {errors.now:.3%} now: 95 % interval of the difference"
        f" {errors.difference.low:+.3%} to {errors.difference.high:+.3%}; it may not begin above 0"
    )
    if not p99.now:
        by_p99 = "no call succeeded, so there is no p99 to compare"
    found = [
        Gate("--compare p99", bool(p99.now) and not p99.worse, by_p99),
        Gate("--compare errors", not errors.worse, by_errors),
    ]
    if not comparison.base.trusted:
        told = "the generator fell behind in the base run: compare with one in which it kept up"
        found.append(Gate("--compare base", passed=False, sentence=told))
    return found
