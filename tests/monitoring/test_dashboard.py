"""Every panel of the dashboard asks for series that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest

from tests.docs.test_metrics import in_code
from tests.monitoring.prometheus import DASHBOARD, RULES, panels, promtool, with_values

PARTS: Final = {"histogram": ("_bucket", "_sum", "_count")}
"""What Prometheus adds to the name of a series of some types."""
TEXT: Final = re.sub(r"^ *#.*\n|^\n", "", RULES.read_text("utf-8"), flags=re.MULTILINE)


def known() -> set[str]:
    """Return the names of all series."""
    found = {"up", *re.findall(r"record: (\S+)", TEXT)}
    for name, series in in_code().items():
        found |= {name + part for part in PARTS.get(series.type, ("",))}
    return found


def names(expression: str) -> set[str]:
    """Return the names of series in an expression."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|without) *\([^)]*\)", " ", expression)
    return set(re.findall(r"[A-Za-z_:][\w:]*\b(?! *\()", bare)) - {"and", "or", "unless"}


def test_every_expression_of_dashboard_and_alerts_names_known_series() -> None:
    rules = re.findall(r"expr: (?:\|\n)?(.*?)\n *(?:for:|labels:|- |\Z)", TEXT, re.DOTALL)
    assert len(rules) == TEXT.count("expr:")
    expressions = [expression for group in panels().values() for expression in group] + rules
    assert {name for expression in expressions for name in names(expression)} - known() == set()


@pytest.mark.parametrize("title", panels())
def test_every_panel_has_an_expression_and_a_description(title: str) -> None:
    assert panels()[title]
    assert all(expression.strip() for expression in panels()[title])
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    (panel,) = [panel for panel in dashboard["panels"] if panel["title"] == title]
    assert panel["description"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_promtool_can_read_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    expressions = [with_values(expression) for group in panels().values() for expression in group]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions)]
    file = tmp_path / "panels.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    checked = promtool("check", "rules", file)
    assert checked.status == 0, checked.output
    assert f"{len(expressions)} rules found" in checked.output
