"""The JSON report, the source of the text and HTML reports. It contains no file name and no identity."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from .comparison import SCHEMA, Change, Comparison
from .encoding import encode
from .gates import Gate
from .histogram import Histogram
from .plan import Plan
from .recording import Figures, Group
from .totals import Totals
from .verdict import Verdict
from .verification import Verification

PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9, "p99_99": 99.99}
DISTRIBUTIONS: Final = ("alipayhk-linkage", "grpcio", "protobuf", "hdrhistogram")


def document(
    plan: Plan,
    totals: Totals,
    judged: Verdict,
    *,
    started_at: datetime,
    checked: Sequence[Gate],
    compared: Comparison | None,
    verified: Verification | None,
    status: int,
) -> dict[str, Any]:
    """Return the whole report."""
    return {
        "schema": SCHEMA,
        "run": {
            "id": plan.run,
            "started_at": started_at.isoformat(timespec="seconds"),
            "measured_s": round(totals.measured, 3),
            "interrupted": totals.interrupted,
            "versions": _versions(),
        },
        "settings": settings(plan),
        "verdict": {**asdict(judged), "sentences": list(judged.sentences), "exit_status": status},
        **_counts(plan, totals),
        **{group.value: _group(totals, group) for group in Group},
        "outcomes": _outcomes(totals),
        "seconds": _seconds(totals),
        "generator": _generator(totals),
        "gates": [asdict(gate) for gate in checked],
        "comparison": _comparison(compared) if compared else None,
        "verification": _verification(verified) if verified else None,
    }


def write(report: dict[str, Any]) -> str:
    """Return the report as JSON text."""
    return json.dumps(report, indent=1) + "\n"


def settings(plan: Plan) -> dict[str, Any]:
    """Return the settings of the run, without file names and key material."""
    mix = plan.mix
    shared: dict[str, Any] = {
        "target": plan.target,
        "encrypted_target": plan.encrypted_target,
        "tls": "none" if plan.tls is None else "mutual" if plan.tls.cert else "one-sided",
        "duration_s": round(plan.duration, 6),
        "warm_up_s": plan.warm_up,
        "deadline_s": plan.deadline,
        "late_after_s": plan.late_after,
        "processes": plan.processes,
        "seed": plan.seed,
        "mix": {"sync": round(mix.sync, 6), "bind": round(1 - mix.sync, 6)},
        "encrypted_share": mix.encrypted,
        "shares": {variant.value: share for variant, share in mix.variants.items() if share},
        "faults": dict(mix.faults),
    }
    if plan.profile is None:
        return {"loop": "closed", "concurrency": plan.callers, **shared}
    pieces = plan.profile.pieces[1 if plan.warm_up else 0 :]
    return {
        "loop": "open",
        "arrivals": "poisson" if plan.poisson else "constant",
        "profile": [
            [round(number, 6) for number in (piece.start_rate, piece.end_rate, piece.duration)]
            for piece in pieces
        ],
        "max_in_flight": plan.max_in_flight,
        **shared,
    }


def summary(histogram: Histogram, *, whole: bool = True) -> dict[str, Any]:
    """Return count, mean, percentiles and maximum in microseconds, and the whole histogram if wanted."""
    values = histogram.at(*PERCENTILES.values())
    figures: dict[str, Any] = {"count": histogram.count, "mean_us": round(histogram.mean_us, 1)}
    figures |= {f"{name}_us": int(value) for name, value in zip(PERCENTILES, values, strict=True)}
    figures |= {"max_us": histogram.max_us, "sum_us": histogram.sum_us}
    return {**figures, "histogram": encode(histogram)} if whole else figures


def _counts(plan: Plan, totals: Totals) -> dict[str, Any]:
    measured = totals.measured
    return {
        "arrivals": {
            "due": totals.due,
            "started": totals.started,
            "late": totals.late,
            "dropped": totals.dropped,
            "unfinished": totals.unfinished,
        },
        "rates": {
            "intended": _per_s(totals.due, measured) if plan.profile else None,
            "started": _per_s(totals.started, measured),
            "succeeded": _per_s(totals.succeeded, measured),
        },
    }


def _generator(totals: Totals) -> dict[str, Any]:
    return {
        "lag": summary(totals.lag, whole=False),
        "start_lag": summary(totals.start_lag, whole=False),
        "busy": round(statistics.fmean(totals.busy or [0.0]), 3),
        "busy_max": round(max(totals.busy, default=0.0), 3),
    }


def _group(totals: Totals, group: Group) -> dict[str, Any]:
    return {
        "count": totals.count(group),
        "latency": summary(totals.latency(group)),
        "service": summary(totals.service(group)),
    }


def _outcomes(totals: Totals) -> list[dict[str, Any]]:
    def row(figures: Figures) -> dict[str, Any]:
        return {
            "count": figures.latency.count,
            "latency": summary(figures.latency, whole=False),
            "service": summary(figures.service, whole=False),
        }

    order = list(Group)
    results = sorted(
        totals.results.items(),
        key=lambda item: (order.index(item[0].group), -item[1].latency.count, item[0]),
    )
    return [
        {
            "group": result.group.value,
            "rpc": result.rpc,
            "asked": result.variant,
            "code": result.code,
            "reason": result.reason,
            "outcome": result.outcome,
            **row(figures),
        }
        for result, figures in results
    ]


def _seconds(totals: Totals) -> list[dict[str, Any]]:
    return [
        {
            "at_s": number,
            "lasts_s": round(min(1.0, max(1e-3, totals.measured - number)), 3)
            if number < totals.measured
            else 1.0,
            "due": second.due,
            "started": second.started,
            "late": second.late,
            "dropped": second.dropped,
            "in_flight_max": second.in_flight,
            "carried_over": second.carried,
            "generator_busy": round(second.busy, 3),
            **{group.value: second.results.get(group, 0) for group in Group},
            "errors": dict(second.errors),
            "latency": summary(second.latency),
        }
        for number, second in sorted(totals.seconds.items())
    ]


def _comparison(compared: Comparison) -> dict[str, Any]:
    def values(change: Change) -> dict[str, Any]:
        return {
            "base": change.base,
            "now": change.now,
            "difference": asdict(change.difference),
            "worse": change.worse,
        }

    return {
        "base": {"id": compared.base.run, "started_at": compared.base.started_at},
        "p99_us": values(compared.p99_us),
        "error_rate": values(compared.error_rate),
        "settings_that_differ": list(compared.differs),
    }


def _verification(verified: Verification) -> dict[str, Any]:
    return {
        "well": verified.passed,
        "requests": verified.requests,
        "sends": {
            api: {str(times): ids for times, ids in counts.items()}
            for api, counts in verified.sends.items()
        },
        "discrepancies": verified.discrepancies,
        "shown": list(verified.shown),
        "incomplete": verified.incomplete,
    }


def _per_s(count: int, seconds: float) -> float:
    return round(count / seconds, 3) if seconds else 0.0


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # not installed, but run from the source tree
            found[name] = "unknown"
    return {
        **found,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
