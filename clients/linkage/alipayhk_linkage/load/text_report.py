"""The report for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

COLUMNS: Final = ("mean", "p50", "p90", "p99", "p99_9", "p99_99", "max")
HEADS: Final = tuple(column.replace("_", ".") for column in COLUMNS)
SHAPES_SHOWN: Final = 4
GROUPS: Final = {"success": "successes", "error": "errors", "apart": "set apart"}


def text_report(report: dict[str, Any]) -> str:
    """Return the report as text."""
    return "\n".join(tame(line).rstrip() for line in _lines(report)) + "\n"


def tame(line: str) -> str:
    """Escape control characters. Texts from a server must not control the terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def ms(us: float) -> str:
    """Format microseconds as milliseconds, with at least three significant digits from 1 ms."""
    value = us / 1e3
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"  # noqa: PLR2004


def headline(report: dict[str, Any]) -> str:
    """Describe the run in one line."""
    chosen = report["settings"]
    if chosen["loop"] == "closed":
        how = f"closed loop, {chosen['concurrency']} callers"
    else:
        how = f"open loop, {chosen['arrivals']} arrivals, {shape(chosen['profile'])}"
    warm_up = f" after {chosen['warm_up_s']:g} s of warm-up" if chosen["warm_up_s"] else ""
    return f"{how}, {report['run']['measured_s']:g} s{warm_up}"


def shape(pieces: Sequence[Sequence[float]]) -> str:
    """Describe the rates of a profile."""
    parts = [f"{start:g}/s" if start == end else f"{start:g} to {end:g}/s" for start, end, _ in pieces]
    if len(parts) <= SHAPES_SHOWN:
        return ", ".join(parts)
    rates = [rate for start, end, _ in pieces for rate in (start, end)]
    return f"{min(rates):g} to {max(rates):g}/s in {len(parts)} pieces"


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"run {report['run']['id']} against {report['settings']['target']}"
    yield headline(report)
    if report["run"]["interrupted"]:
        yield "INTERRUPTED: the figures end at the interruption"
    yield ""
    arrivals, rates = report["arrivals"], report["rates"]
    yield "arrivals    " + "   ".join(f"{name} {count}" for name, count in arrivals.items())
    yield "per second  " + "   ".join(
        f"{name} {rate:.1f}" for name, rate in rates.items() if rate is not None
    )
    yield ""
    yield f"{'milliseconds':<22}{'calls':>8}" + "".join(f"{head:>10}" for head in HEADS)
    for group, title in GROUPS.items():
        if report[group]["count"] or group == "success":
            for measure in ("latency", "service"):
                yield _row(f"{title}, {measure}", report[group][measure])
    if report["settings"]["loop"] == "open":
        yield "latency counts from the intended start, service from the actual one"
    yield ""
    yield from _outcomes(report["outcomes"])
    yield ""
    yield from report["verdict"]["sentences"]
    lag = report["generator"]["lag"]
    yield (
        f"Generator's own lag: p99 {ms(lag['p99_us'])} ms, max {ms(lag['max_us'])} ms;"
        f" its loop was busy {report['generator']['busy']:.0%} of the time."
    )
    yield from _checks(report)


def _row(title: str, figures: dict[str, Any]) -> str:
    values = "".join(f"{ms(figures[f'{column}_us']):>10}" for column in COLUMNS)
    return f"{title:<22}{figures['count']:>8}{values if figures['count'] else ''}"


def _outcomes(outcomes: Sequence[dict[str, Any]]) -> Iterator[str]:
    heads = ("rpc", "asked for", "code", "reason", "outcome", "calls", "p50", "p99")
    rows = [
        (
            *(
                end["rpc"],
                end["asked"],
                end["code"],
                end["reason"] or "-",
                end["outcome"],
                str(end["count"]),
            ),
            *(ms(end["latency"]["p50_us"]), ms(end["latency"]["p99_us"])),
        )
        for end in outcomes
    ]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    numbers = len(heads) - 3
    for row in (heads, *rows):
        cells = zip(row, widths, range(len(row)), strict=True)
        yield "  ".join(
            cell.rjust(width) if at >= numbers else cell.ljust(width) for cell, width, at in cells
        )


def _checks(report: dict[str, Any]) -> Iterator[str]:
    for gate in report["gates"]:
        yield f"{'passed' if gate['passed'] else 'FAILED'}  {gate['name']}: {gate['sentence']}"
    if report["comparison"]:
        for difference in report["comparison"]["settings_that_differ"]:
            yield f"note    the base run differs: {difference}"
    if verified := report["verification"]:
        yield verification_line(verified)
        yield from (f"  {discrepancy}" for discrepancy in verified["shown"])


def verification_line(verified: dict[str, Any]) -> str:
    """Return the result of --verify in one line."""
    if verified["incomplete"]:
        return f"FAILED  --verify: {verified['incomplete']}"
    sends = "; ".join(
        f"{api} arrived " + ", ".join(f"{times}x: {ids}" for times, ids in counts.items())
        for api, counts in verified["sends"].items()
    )
    count = verified["discrepancies"]
    found = f"{count} discrepancies" if count else "all outcomes confirmed"
    state = "passed" if verified["well"] else "FAILED"
    return f"{state}  --verify: {verified['requests']} request ids, {found} ({sends})"
