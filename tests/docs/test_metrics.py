"""docs/metrics.md lists every series with its type and labels."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from service.telemetry.metrics import Metrics
from tests.docs.pages import rows
from tests.peers.processes import ROOT

PAGE: Final = (ROOT / "docs/metrics.md").read_text("utf-8")
UNITS: Final = {"_timestamp_seconds": "seconds since 1970", "_seconds": "seconds", "_bytes": "bytes"}


class Series(NamedTuple):
    """A series as the page or the code has it."""

    type: str
    labels: frozenset[str]


def in_code() -> dict[str, Series]:
    """Return each series by the name that `/metrics` shows."""
    return {
        collector._name + "_total" * (collector._type == "counter"): Series(  # type: ignore[attr-defined]
            collector._type,  # type: ignore[attr-defined]
            frozenset(collector._labelnames),  # type: ignore[attr-defined]
        )
        for collector in Metrics().registry._collector_to_names
    }


def test_the_page_lists_every_series_with_its_type_and_labels() -> None:
    documented = {
        name.strip("`"): Series(kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, *_ in rows(PAGE, "series")
    }
    assert documented == in_code()


def test_the_page_has_the_unit_that_the_name_ends_with() -> None:
    for name, _, _, unit, *_ in rows(PAGE, "series"):
        ending = next((ending for ending in UNITS if name.strip("`").endswith(ending)), None)
        assert ending is None or unit == UNITS[ending], name


def test_the_page_says_of_each_gauge_how_workers_are_put_together() -> None:
    section = PAGE.partition("## Several workers")[2]
    gauges = {name for name, series in in_code().items() if series.type == "gauge"}
    named = set(re.findall(r"`(alipayhk_\w+)`", section)) | {"alipayhk_build_info"}
    assert {name for name in gauges if not name.startswith("alipayhk_ledger_in_doubt")} == named
