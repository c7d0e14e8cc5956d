"""The dashboard is one of Grafana's, and every panel asks for series that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.docs.test_metrics import in_code
from tests.monitoring.prometheus import DASHBOARD, RULES, panels, promtool, with_values

PARTS: Final = {"histogram": ("_bucket", "_sum", "_count")}
"""What Prometheus adds to the name of a series of some types."""
TEXT: Final = re.sub(r"^ *#.*\n|^\n", "", RULES.read_text("utf-8"), flags=re.MULTILINE)


def lost(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Yield where a JSON value is different in, or missing from, another one."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            yield from lost(value, after.get(name), f"{place}.{name}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (value, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(value, other, f"{place}[{number}]")
    elif before != after:
        yield place


def test_grafanas_types_know_every_member_of_the_dashboard() -> None:
    register_default_plugins()
    text = DASHBOARD.read_text("utf-8")
    parsed = Dashboard.from_json(json.loads(text))
    not_known = set(lost(json.loads(text), json.loads(JSONEncoder().encode(parsed))))
    # Grafana itself writes this copy of a variable's query, which its types do not have.
    assert {
        place for place in not_known if not re.fullmatch(r"\.templating\.list\[\d\]\.definition", place)
    } == set()


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
