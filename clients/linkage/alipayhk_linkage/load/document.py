"""The report as JSON has it; text and page are made from it. It names no file and no person."""

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
from .plan import Plan
from .recording import Figures, Group
from .spread import Spread
from .tally import Tally
from .verdict import Verdict
from .verification import Verification

PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9, "p99_99": 99.99}
DISTRIBUTIONS: Final = ("alipayhk-linkage", "grpcio", "protobuf", "hdrhistogram")


def document(
    plan: Plan,
    tally: Tally,
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
            "measured_s": round(tally.measured, 3),
            "interrupted": tally.interrupted,
            "versions": _versions(),
        },
        "settings": settings(plan),
        "verdict": {**asdict(judged), "sentences": list(judged.sentences), "exit_status": status},
        **_counts(plan, tally),
        **{group.value: _group(tally, group) for group in Group},
        "outcomes": _outcomes(tally),
        "seconds": _seconds(tally),
        "generator": _generator(tally),
        "gates": [asdict(gate) for gate in checked],
        "comparison": _comparison(compared) if compared else None,
        "verification": _verification(verified) if verified else None,
    }


def write(report: dict[str, Any]) -> str:
    """Write a report as JSON."""
    return json.dumps(report, indent=1) + "\n"


def settings(plan: Plan) -> dict[str, Any]:
    """Return what was asked for, without what a report must not hold."""
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
        "shares": {asked.value: share for asked, share in mix.asked.items() if share},
        "faults": dict(mix.faults),
    }
    if plan.profile is None:
        return {"loop": "closed", "concurrency": plan.callers, **shared}
    pieces = plan.profile.pieces[1 if plan.warm_up else 0 :]
    return {
        "loop": "open",
        "arrivals": "poisson" if plan.poisson else "constant",
        "profile": [
            [round(number, 6) for number in (piece.begins, piece.ends, piece.lasts)] for piece in pieces
        ],
        "max_in_flight": plan.max_in_flight,
        **shared,
    }


def spread(of: Spread, *, histogram: bool = True) -> dict[str, Any]:
    """Return the figures of a spread, in microseconds."""
    values = of.at(*PERCENTILES.values())
    figures: dict[str, Any] = {"count": of.count, "mean_us": round(of.mean_us, 1)}
    figures |= {f"{name}_us": int(value) for name, value in zip(PERCENTILES, values, strict=True)}
    figures |= {"max_us": of.max_us, "sum_us": of.sum_us}
    return {**figures, "histogram": encode(of)} if histogram else figures


def _counts(plan: Plan, tally: Tally) -> dict[str, Any]:
    measured = tally.measured
    return {
        "arrivals": {
            "due": tally.due,
            "started": tally.started,
            "late": tally.late,
            "dropped": tally.dropped,
            "unfinished": tally.unfinished,
        },
        "rates": {
            "intended": _per_s(tally.due, measured) if plan.profile else None,
            "started": _per_s(tally.started, measured),
            "succeeded": _per_s(tally.succeeded, measured),
        },
    }


def _generator(tally: Tally) -> dict[str, Any]:
    return {
        "lag": spread(tally.lag, histogram=False),
        "start_lag": spread(tally.start_lag, histogram=False),
        "busy": round(statistics.fmean(tally.busy or [0.0]), 3),
        "busy_max": round(max(tally.busy, default=0.0), 3),
    }


def _group(tally: Tally, group: Group) -> dict[str, Any]:
    return {
        "count": tally.count(group),
        "latency": spread(tally.latency(group)),
        "service": spread(tally.service(group)),
    }


def _outcomes(tally: Tally) -> list[dict[str, Any]]:
    def row(figures: Figures) -> dict[str, Any]:
        return {
            "count": figures.latency.count,
            "latency": spread(figures.latency, histogram=False),
            "service": spread(figures.service, histogram=False),
        }

    order = list(Group)
    ends = sorted(
        tally.ends.items(), key=lambda item: (order.index(item[0].group), -item[1].latency.count, item[0])
    )
    return [{"group": end.group.value, **end._asdict(), **row(figures)} for end, figures in ends]


def _seconds(tally: Tally) -> list[dict[str, Any]]:
    return [
        {
            "at_s": number,
            "lasts_s": round(min(1.0, max(1e-3, tally.measured - number)), 3)
            if number < tally.measured
            else 1.0,
            "due": second.due,
            "started": second.started,
            "late": second.late,
            "dropped": second.dropped,
            "in_flight_max": second.in_flight,
            "carried_over": second.carried,
            "generator_busy": round(second.busy, 3),
            **{group.value: second.ends.get(group, 0) for group in Group},
            "errors": dict(second.errors),
            "latency": spread(second.latency),
        }
        for number, second in sorted(tally.seconds.items())
    ]


def _comparison(compared: Comparison) -> dict[str, Any]:
    def change(of: Change) -> dict[str, Any]:
        return {"base": of.base, "now": of.now, "difference": asdict(of.difference), "worse": of.worse}

    return {
        "base": {"id": compared.base.run, "started_at": compared.base.started_at},
        "p99_us": change(compared.p99_us),
        "error_rate": change(compared.error_rate),
        "settings_that_differ": list(compared.differs),
    }


def _verification(verified: Verification) -> dict[str, Any]:
    return {
        "well": verified.well,
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
        except PackageNotFoundError:  # run from its sources
            found[name] = "unknown"
    return {
        **found,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
