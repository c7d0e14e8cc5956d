"""The figures of `make bench`: tables from results, and shares from a profile."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

from bench import tables
from bench.profiling import LOOP, STAGES, shares


def loop(cpu_us: float = 0, rate: float = 0, p50_ms: float = 0, p99_ms: float = 0) -> dict[str, Any]:
    return {"cpu_us": cpu_us, "rate": rate, "p50_ms": p50_ms, "p99_ms": p99_ms}


def subject(*closed: tuple[float, float], group: str = "gateways", floor: str = "plain") -> dict[str, Any]:
    return {
        "group": group,
        "meaning": f"a row of {group}",
        "floor": floor,
        "closed": [loop(cpu_us, rate) for cpu_us, rate in closed],
        "open": [loop(p50_ms=2, p99_ms=9)] * len(closed),
        "mib": [70.4] * len(closed),
    }


DOCUMENT = {
    "facts": {"date": "2026-03-01", "CPU": "two cores"},
    "how": {"rounds": 3, "seconds": 6.0},
    "parts": {
        "echo": [100, 200, 100],
        "post": [50, 100, 50],
        "post-fresh": [150, 300, 150],
        "sign": [200, 400, 200],
        "verify": [50, 100, 50],
        "wrap": [50, 100, 50],
        "unwrap": [150, 300, 150],
    },
    "subjects": {
        # The machine ran at half speed in the second round.
        "naive": subject((600, 1_600), (1_200, 800), (600, 1_600)),
        "sqlite": subject((680, 1_500), (1_160, 900), (600, 1_700)),
        "bind": subject((800, 1_200), (1_600, 600), (800, 1_200), group="calls", floor="bind"),
    },
    "growth": {
        "facts": {"date": "2026-03-02"},
        "points": [(number * 1_000, 70.0 + number, 1_000.0) for number in range(1, 21)],
    },
}


def test_cost_is_divided_by_the_floor_of_the_same_round() -> None:
    assert tables.times_floor(DOCUMENT, "sqlite") == 1.5
    assert tables.times_floor(DOCUMENT, "bind") == 1.6


def test_tables_have_the_medians_of_the_rounds() -> None:
    text = tables.markdown(DOCUMENT)
    assert text.startswith("date 2026-03-01, CPU two cores. The medians of 3 rounds of 6 s.\n")
    assert "\n| a row of gateways | 680 | 1500 | 1.50 | 2.0 | 9.0 | 70 |\n" in text
    assert "\n| RSA-2048 signature | 200 |\n" in text
    assert "\n\ndate 2026-03-02.\n\n| calls |" in text
    assert text.endswith("\n| 20,000 | 90 | 1000 |\n")


def test_goals_without_measurements_are_left_out() -> None:
    text = tables.markdown(DOCUMENT)
    assert "\n| SQLite ÷ floor, CPU | 1.50 | ≤ 1.65 | met |\n" in text
    assert "\n| SQLite ÷ naive Python, calls/s | 0.94 | ≥ 1 | **missed** |\n" in text
    growth = "last ÷ first fifth of a million calls"
    assert f"\n| {growth}, memory | 1.20 | ≤ 1.15 | **missed** |\n" in text
    assert f"\n| {growth}, CPU | 1.00 | ≤ 1.15 | met |\n" in text
    assert "workers" not in text


def test_tables_replace_those_of_the_page_and_nothing_else() -> None:
    page = tables.PAGE.read_text("utf-8")
    once = tables.quoted(page, "new tables\n")
    assert "<!-- results -->\nnew tables\n<!-- end of results -->\n" in once
    assert tables.quoted(once, part_of(page)) == page


def part_of(page: str) -> str:
    """Return the results on the page."""
    return page.partition("<!-- results -->\n")[2].partition("<!-- end of results -->")[0]


def test_the_page_quotes_the_committed_results_or_says_that_there_are_none() -> None:
    text = "Not measured yet: `make bench` replaces this line.\n"
    if tables.RESULTS.exists():
        document = json.loads(tables.RESULTS.read_text("utf-8"))
        text = tables.markdown(document)
        assert tables.RESULTS.with_suffix(".md").read_text("utf-8") == text
        assert tables.RESULTS.with_suffix(".svg").read_text("utf-8") == tables.picture(document)
    assert part_of(tables.PAGE.read_text("utf-8")) == text


def test_plot_has_a_bar_for_each_gateway() -> None:
    root = ET.fromstring(tables.picture(DOCUMENT))
    assert [text for text in root.itertext() if text.strip()] == [
        *("CPU time per call ÷ floor", "a row of gateways", "1.50", "a row of gateways", "1.50"),
        *("p99 at half load, ms", "a row of gateways", "9.00", "a row of gateways", "9.00"),
    ]


def test_samples_count_for_the_innermost_package_in_the_event_loop() -> None:
    start = "main (service/commands/cli.py:49);run (asyncio/runners.py:118);_run (asyncio/events.py:80)"
    samples = [
        f"{start};_one (service/server/first_message.py:50);post (aiohttp/client.py:10);run (re.py:7) 3",
        f"{start};_one (service/server/first_message.py:50) 2",
        f"{start} 5",
        "run (service/ledger/sqlite/writer.py:110) 90",
    ]
    assert shares(samples) == {LOOP: 0.5, "aiohttp": 0.3, STAGES["service/server/"]: 0.2}
