"""docs/operations.md names the metrics with their labels, and the members of the lines of the log."""

from __future__ import annotations

import re
from typing import Final

from prometheus_client import CollectorRegistry

from service.delivery import attempt_log
from service.server import access_log
from service.server.error_translation import LOGGED_CODES, LOGGED_NUMBERS, LOGGED_TEXTS
from service.telemetry.logs import ALLOWED, FrequentEvent
from service.telemetry.metrics import Metrics
from tests.peers.processes import ROOT

PAGE: Final = (ROOT / "docs/operations.md").read_text("utf-8")


def rows(head: str) -> list[list[str]]:
    """Return the cells of the tables whose first column has this head."""
    tables = re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert tables
    return [line.strip("| ").split(" | ") for table in tables for line in table.splitlines()]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def exposed(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Return the labels of each metric by the name that `/metrics` shows."""
    return {
        collector._name + "_total" * (collector._type == "counter"): set(collector._labelnames)  # type: ignore[attr-defined]
        for collector in registry._collector_to_names
    }


def test_the_table_of_metrics_has_each_metric_with_its_labels() -> None:
    documented: dict[str, set[str]] = {}
    for metrics, *labels in rows("metrics"):
        known = set(names(" ".join(labels))) - {"OK"}
        for name in names(metrics):
            documented[name] = known
    documented["grpc_server_handled_total"] |= documented["grpc_server_started_total"]
    assert documented == exposed(Metrics().registry)


def members(event: FrequentEvent) -> set[str]:
    line = event._line
    return set(re.findall(r'"(\w+)": %s', line))


def test_the_tables_of_the_log_have_the_members_of_calls_and_attempts() -> None:
    documented = {name for cell, *_ in rows("member") for name in names(cell)}
    assert documented <= ALLOWED
    assert documented >= members(access_log._CALL) | members(attempt_log._ATTEMPT)
    assert documented >= {*LOGGED_CODES, *LOGGED_NUMBERS, *LOGGED_TEXTS}
