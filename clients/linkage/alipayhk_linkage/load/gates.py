"""What a run must keep to, for CI."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .comparison import Comparison, failures
from .recording import Group
from .tally import Tally


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
        sentence = f"over 1 % of the calls never succeeded; at most {limit * 1e3:g} ms"
        return Gate("--max-p99", passed=False, sentence=sentence)
    p99_ms = latency.at(100 * rank / latency.count)[0] / 1e3
    counting = f", the {endless} dropped counted as slower" if endless else ""
    sentence = f"p99 is {p99_ms:.3g} ms{counting}; at most {limit * 1e3:g} ms"
    return Gate("--max-p99", p99_ms <= limit * 1e3, sentence)


def _no_worse(comparison: Comparison) -> list[Gate]:
    p99, errors = comparison.p99_us, comparison.error_rate
    low, high = p99.difference.low / 1e3, p99.difference.high / 1e3
    by_p99 = (
        f"p99 {p99.base / 1e3:.3g} ms then, {p99.now / 1e3:.3g} ms now:"
        f" {p99.difference.value / 1e3:+.3g} ms, 95 % interval {low:+.3g} to {high:+.3g} ms;"
        f" it may begin at most {p99.tolerated / 1e3:.3g} ms above 0"
    )
    by_errors = (
        f"errors {errors.base:.3%} then, {errors.now:.3%} now: 95 % interval of the difference"
        f" {errors.difference.low:+.3%} to {errors.difference.high:+.3%}; it may not begin above 0"
    )
    found = [
        Gate("--compare p99", not p99.worse, by_p99),
        Gate("--compare errors", not errors.worse, by_errors),
    ]
    if not comparison.base.trusted:
        told = "the generator fell behind in the base run: compare with one in which it kept up"
        found.append(Gate("--compare base", passed=False, sentence=told))
    return found
