"""The tables of `docs/performance.md`, made from the JSON of `bench.compare`.

`python -m bench.tables` makes them again from the results of the last complete run.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from bench.plot import plot

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "bench" / "results" / "compare.json"
PAGE: Final = ROOT / "docs" / "performance.md"

FLOORS: Final = {
    "plain": ("echo", "post", "sign", "verify"),
    "encrypted": ("echo", "post", "sign", "verify", "wrap", "unwrap"),
    "bind": ("echo", "post-fresh", "sign", "verify"),
}
PARTS: Final = {
    "echo": "grpc.aio, a constant response (uvloop)",
    "post": "aiohttp, one POST (uvloop)",
    "post-fresh": "aiohttp, one POST on a new connection (uvloop)",
    "sign": "RSA-2048 signature",
    "verify": "its verification",
    "wrap": "RSA-2048 encryption of an AES key",
    "unwrap": "its decryption",
}
TITLES: Final = {
    "gateways": "Side by side",
    "calls": "Other calls, with the SQLite ledger",
    "captures": "Captures, with the SQLite ledger",
    "channels": "Connections from callers, with the SQLite ledger",
    "rows": "Size of the SQLite ledger",
    "workers": "Workers, with the SQLite ledger",
}

Document = Mapping[str, Any]
Rows = Iterable[Iterable[str]]


def markdown(document: Document) -> str:
    """Return all tables."""
    how = document["how"]
    texts = [f"{_facts(document['facts'])}. The medians of {how['rounds']} rounds of {how['seconds']:g} s."]
    texts += ["### Goals", table(("figure", "measured", "goal", ""), _goals(document))]
    for group, title in TITLES.items():
        names = [name for name, of in document["subjects"].items() if of["group"] == group]
        if names:
            heads = ("", "CPU µs per call", "calls/s", "× floor", "p50 ms", "p99 ms", "MiB")
            texts += [f"### {title}", table(heads, (_row(document, name) for name in names))]
    floor = [(PARTS[part], f"{_median(of):.0f}") for part, of in document["parts"].items()]
    texts += ["### The floor", table(("part", "CPU µs"), floor)]
    if grown := document.get("growth"):
        rows = ((f"{calls:,}", f"{mib:.0f}", f"{cpu:.0f}") for calls, mib, cpu in grown["points"])
        texts += ["### A million calls, with the SQLite ledger", _facts(grown["facts"]) + "."]
        texts += [table(("calls", "MiB", "CPU µs per call"), rows)]
    return "\n\n".join(texts) + "\n"


def quoted(page: str, tables: str, part: str = "results") -> str:
    """Return the page with these tables between the marks of a part."""
    marked = re.compile(f"(?<=<!-- {part} -->\\n).*(?=<!-- end of {part} -->)", re.DOTALL)
    return marked.sub(lambda _: tables, page)


def write(document: Document, results: Path) -> None:
    """Write the results as JSON and as tables, and quote the tables in the page if the run was complete."""
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    results.with_suffix(".md").write_text(markdown(document), "utf-8")
    results.with_suffix(".svg").write_text(picture(document), "utf-8")
    if results == RESULTS:
        PAGE.write_text(quoted(PAGE.read_text("utf-8"), markdown(document)), "utf-8")


def picture(document: Document) -> str:
    """Return the plot of the gateways; of all subjects if no gateway was measured."""
    subjects = document["subjects"]
    names = [name for name, of in subjects.items() if of["group"] == "gateways"] or list(subjects)
    titles = {name: subjects[name]["meaning"].replace("*", "").replace("`", "") for name in names}
    ours = {name: titles[name].startswith("ours") for name in names}
    costs = [(titles[name], times_floor(document, name), ours[name]) for name in names]
    tails = [(titles[name], value(document, name, "open", "p99_ms"), ours[name]) for name in names]
    return plot((("CPU time per call ÷ floor", costs), ("p99 at half load, ms", tails)))


def value(document: Document, name: str, loop: str, figure: str) -> float:
    """Return the median of a figure of a subject: `loop` is `closed` or `open`."""
    return _median(report[figure] for report in document["subjects"][name][loop])


def times_floor(document: Document, name: str) -> float:
    """Return the CPU time of a call divided by its floor in the same round, as the median of the rounds."""
    of = document["subjects"][name]
    parts = (document["parts"][part] for part in FLOORS[of["floor"]])
    floors = map(sum, zip(*parts, strict=True))
    return _median(report["cpu_us"] / floor for report, floor in zip(of["closed"], floors, strict=True))


def _facts(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _row(document: Document, name: str) -> Iterable[str]:
    of = document["subjects"][name]
    cpu, rate = (value(document, name, "closed", figure) for figure in ("cpu_us", "rate"))
    p50, p99 = (value(document, name, "open", figure) for figure in ("p50_ms", "p99_ms"))
    figures = (f"{cpu:.0f}", f"{rate:.0f}", f"{times_floor(document, name):.2f}")
    return of["meaning"], *figures, f"{p50:.1f}", f"{p99:.1f}", f"{_median(of['mib']):.0f}"


def _goals(document: Document) -> Iterable[Iterable[str]]:
    """Yield each goal whose subjects were measured."""

    def floor(name: str) -> float:
        return times_floor(document, name)

    def ratio(one: str, other: str, figure: str) -> float:
        return value(document, one, "closed", figure) / value(document, other, "closed", figure)

    def spread(group: str) -> float:
        names = [name for name, of in document["subjects"].items() if of["group"] == group]
        costs = [value(document, name, "closed", "cpu_us") for name in names]
        return max(costs) / min(costs)

    def growth(figure: int) -> float:
        figures = [point[figure] for point in document["growth"]["points"]]
        some = len(figures) // 5
        return _median(figures[-some:]) / _median(figures[1 : some + 1])

    goals: tuple[tuple[str, Callable[[], float], str, float], ...] = (
        ("`off` ÷ floor, CPU", lambda: floor("off"), "≤", 1.45),
        ("SQLite ÷ floor, CPU", lambda: floor("sqlite"), "≤", 1.65),
        ("SQLite ÷ naive Python, calls/s", lambda: ratio("sqlite", "naive", "rate"), "≥", 1.0),
        ("SQLite at half load, p50 ms", lambda: value(document, "sqlite", "open", "p50_ms"), "≤", 3.0),
        ("SQLite at half load, p99 ms", lambda: value(document, "sqlite", "open", "p99_ms"), "≤", 8.0),
        ("two workers ÷ one, calls/s", lambda: ratio("workers-2", "workers-1", "rate"), "≥", 1.7),
        ("BindAccount ÷ its floor, CPU", lambda: floor("bind"), "≤", 1.6),
        ("encrypted SyncLinkage ÷ its floor, CPU", lambda: floor("encrypted"), "≤", 1.6),
        (
            "SQLite with 100 captures each second ÷ without, CPU",
            lambda: ratio("captures-100", "sqlite", "cpu_us"),
            "≤",
            1.1,
        ),
        ("most ÷ least CPU, by channels", lambda: spread("channels"), "≤", 1.15),
        ("most ÷ least CPU, by ledger rows", lambda: spread("rows"), "≤", 1.15),
        ("refusing an invalid call ÷ serving", lambda: ratio("invalid", "sqlite", "cpu_us"), "≤", 0.6),
        (
            "refusing an unlisted caller ÷ serving",
            lambda: ratio("unlisted", "tls", "cpu_us"),
            "≤",
            0.6,
        ),
        ("last ÷ first fifth of a million calls, memory", lambda: growth(1), "≤", 1.15),
        ("last ÷ first fifth of a million calls, CPU", lambda: growth(2), "≤", 1.15),
    )
    for text, measured, sign, limit in goals:
        try:
            figure = measured()
        except (KeyError, ValueError, IndexError):
            continue
        met = figure <= limit if sign == "≤" else figure >= limit
        yield text, f"{figure:.2f}", f"{sign} {limit:g}", "met" if met else "**missed**"


def table(heads: Iterable[str], rows: Rows) -> str:
    """Return a table, with its first column on the left and the others on the right."""
    lines = [list(heads), *map(list, rows)]
    lines.insert(1, ["---"] + ["---:"] * (len(lines[0]) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _median(figures: Iterable[float]) -> float:
    return statistics.median(figures)


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text("utf-8")), RESULTS)
