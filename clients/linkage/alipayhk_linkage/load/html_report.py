"""The report as one HTML page. It loads nothing, and follows the browser's light or dark scheme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from .figures import plots
from .plots import Plot, legend, svg
from .style import STYLE
from .text_report import COLUMNS, GROUPS, HEADS, headline, ms, verification_line

_UNIT: Final = "<small> ms</small>"


def html_report(report: dict[str, Any]) -> str:
    """Return the report as HTML."""
    run = report["run"]
    title = f"Load on {report['settings']['target']}"
    body = [
        f"<header><h1>{escape(title)}</h1><p>{escape(headline(report))}</p>",
        f"<p class=quiet>Run {escape(run['id'])}, {escape(run['started_at'])}</p></header>",
        _verdict(report),
        _tiles(report),
        f'<section class="plots" aria-label="Plots">{"".join(map(_figure, plots(report)))}</section>',
        _latencies(report),
        _outcomes(report),
        _checks(report),
        _settings(report),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _verdict(report: dict[str, Any]) -> str:
    judged, interrupted = report["verdict"], report["run"]["interrupted"]
    failed = [gate["sentence"] for gate in report["gates"] if not gate["passed"]]
    verified = report["verification"]
    if verified and not verified["well"]:
        failed.append(verification_line(verified).partition(": ")[2])
    good = judged["kept_up"] and not judged["saturated"] and not interrupted and not failed
    sentences = ["Interrupted: the figures end at the interruption."] if interrupted else []
    sentences += [*judged["sentences"], *(f"Failed: {sentence}." for sentence in failed)]
    content = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    style = "passed" if good else "failed"
    return f'<section class="verdict {style}" aria-label="Verdict">{content}</section>'


def _tiles(report: dict[str, Any]) -> str:
    latency, arrivals = report["success"]["latency"], report["arrivals"]
    finished = report["success"]["count"] + report["error"]["count"]
    errors = f"{report['error']['count'] / finished:.2%}" if finished else "-"
    tiles = [
        ("p50", ms(latency["p50_us"]) + _UNIT),
        ("p99", ms(latency["p99_us"]) + _UNIT),
        ("p99.9", ms(latency["p99_9_us"]) + _UNIT),
        ("succeeded", f"{report['rates']['succeeded']:.1f}<small> /s</small>"),
        ("errors", errors),
        ("dropped", str(arrivals["dropped"])),
        ("late", str(arrivals["late"])),
    ]
    entries = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles)
    return f"<dl class=tiles>{entries}</dl>"


def _figure(plot: Plot) -> str:
    return f"<figure><figcaption>{escape(plot.title)}</figcaption>{legend(plot)}{svg(plot)}</figure>"


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int) -> str:
    """Return a table. Its first `text_columns` columns contain text, and the others numbers."""
    top = "".join(
        f"<th scope=col{_number(at, text_columns)}>{escape(head)}</th>" for at, head in enumerate(heads)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{_number(at, text_columns)}>{escape(cell)}</td>" for at, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        f"<section><h2>{escape(title)}</h2>"
        f'<div class=scroll tabindex=0 role=region aria-label="{escape(title)}">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _number(column: int, text_columns: int) -> str:
    return " class=number" if column >= text_columns else ""


def _latencies(report: dict[str, Any]) -> str:
    rows = [
        (f"{title}, {measure}", str(figures["count"]), *(ms(figures[f"{column}_us"]) for column in COLUMNS))
        for group, title in GROUPS.items()
        for measure, figures in report[group].items()
        if measure != "count" and figures["count"]
    ]
    return _table("Milliseconds", ("", "calls", *HEADS), rows, text_columns=1)


def _outcomes(report: dict[str, Any]) -> str:
    rows = [
        (
            *(GROUPS[row["group"]], row["rpc"], row["asked"], row["code"], row["reason"], row["outcome"]),
            *(str(row["count"]), ms(row["latency"]["p50_us"]), ms(row["latency"]["p99_us"])),
        )
        for row in report["outcomes"]
    ]
    heads = ("", "rpc", "asked for", "code", "reason", "outcome", "calls", "p50", "p99")
    return _table("Outcomes", heads, rows, text_columns=6)


def _checks(report: dict[str, Any]) -> str:
    rows = [
        ("passed" if gate["passed"] else "FAILED", gate["name"], gate["sentence"])
        for gate in report["gates"]
    ]
    if report["comparison"]:
        differing = report["comparison"]["settings_that_differ"]
        rows += [("note", "the base run differs", difference) for difference in differing]
    if verified := report["verification"]:
        state, _, sentence = verification_line(verified).partition("  ")
        rows.append((state, "--verify", sentence.partition(": ")[2]))
        rows += [("", "", discrepancy) for discrepancy in verified["shown"]]
    return _table("Gates", ("", "", ""), rows, text_columns=3) if rows else ""


def _settings(report: dict[str, Any]) -> str:
    rows = [(name.replace("_", " "), _plain(value)) for name, value in report["settings"].items()]
    lag = report["generator"]["lag"]
    rows.append(("generator's lag", f"p99 {ms(lag['p99_us'])} ms, max {ms(lag['max_us'])} ms"))
    rows.append(("generator's event loop busy", f"{report['generator']['busy']:.0%} of the time"))
    rows += list(report["run"]["versions"].items())
    return _table("Settings and versions", ("", ""), rows, text_columns=2)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {share:.4g}" for name, share in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(f"{start:g} to {end:g}/s in {seconds:g} s" for start, end, seconds in value)
    return "none" if value is None else str(value)
