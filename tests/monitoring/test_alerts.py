"""The alerts are correct by promtool, are tested one by one, and lead to a page that says what to do."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.monitoring.prometheus import CONFIG, RULES, promtool
from tests.peers.processes import ROOT
from tests.test_house import anchors

TEXT: Final = RULES.read_text("utf-8")
_ALERT: Final = re.compile(r"- alert: (\w+)\n(.*?)(?=\n *- (?:alert|record|name)|\Z)", re.DOTALL)
ALERTS: Final = {found[1]: found[2] for found in _ALERT.finditer(TEXT)}
"""The text of each alert by its name."""
TESTS: Final = ROOT / "tests/monitoring/alerts.yaml"


def test_promtool_accepts_the_configuration_and_its_rules() -> None:
    checked = promtool("check", "config", CONFIG)
    assert checked.status == 0, checked.output
    assert f"{TEXT.count('- alert:') + TEXT.count('- record:')} rules found" in checked.output


def test_alerts_fire_as_their_unit_tests_say() -> None:
    tested = promtool("test", "rules", TESTS)
    assert tested.status == 0, tested.output


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_tested_with_and_without_a_fault(alert: str) -> None:
    expected = re.findall(
        rf"alertname: {alert}(?:\n *|, )eval_time: \w+(?:\n *|, )exp_alerts:(.*)", TESTS.read_text("utf-8")
    )
    assert {text.strip(" }") for text in expected} == {"", "[]"}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_happens_and_names_its_runbook(alert: str) -> None:
    text = ALERTS[alert]
    assert re.search(r"labels: \{severity: (page|ticket)\}", text)
    for annotation in ("summary", "description"):
        assert re.search(rf"^ +{annotation}: \S", text, re.MULTILINE), annotation
    runbook = re.search(r"^ +runbook: docs/operations\.md#(\S+)$", text, re.MULTILINE)
    assert runbook
    assert runbook[1] in anchors(ROOT / "docs/operations.md")


def test_the_page_of_operations_explains_every_alert() -> None:
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    section = page.partition("## Alerts\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"\b(Alipayhk\w+)\b", section))
    assert named == set(ALERTS)
