"""Prometheus and promtool, from Debian's package prometheus, and what the files in deploy/ contain."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from tests.peers.processes import ROOT, Completed, run, running
from tests.ports import free_port

RULES: Final = ROOT / "deploy/prometheus/alipayhk-gateway.rules.yaml"
CONFIG: Final = ROOT / "deploy/prometheus/prometheus.yaml"
DASHBOARD: Final = ROOT / "deploy/grafana/dashboards/alipayhk-gateway.json"
WAIT_S: Final = 60.0
_NO_PROXY: Final = build_opener(ProxyHandler({}))


def program(name: str) -> str:
    """Return the path of a program of the package."""
    path = shutil.which(name)
    assert path is not None, f"{name} is missing: install Debian's package prometheus."
    return path


def promtool(*words: str | Path) -> Completed:
    """Run promtool."""
    return run(program("promtool"), *words)


def panels() -> dict[str, list[str]]:
    """Return the expressions of each panel of the dashboard by its title."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    shown = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in shown}


def with_values(expression: str) -> str:
    """Return an expression of the dashboard with values for Grafana's variables."""
    expression = expression.replace("$__rate_interval", "5m")
    return re.sub(r"\$(job|instance)\b", ".*", expression)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus that runs."""

    url: str

    def get(self, path: str, **query: str) -> Any:
        """Return the data of a page of its API."""
        with _NO_PROXY.open(f"{self.url}/api/v1/{path}?{urlencode(query)}", timeout=WAIT_S) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[Any]:
        """Return the series of an expression now."""
        return list(self.get("query", query=expression)["result"])

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = self.get("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@contextmanager
def scraping(target: str, directory: Path) -> Iterator[Prometheus]:
    """Run Prometheus with the configuration of deploy/, but a scrape and an evaluation each second."""
    config = CONFIG.read_text("utf-8")
    assert "gateway:9464" in config
    (directory / CONFIG.name).write_text(config.replace("gateway:9464", target).replace("15s", "1s"))
    shutil.copy(RULES, directory)
    port = free_port()
    words = (
        f"--config.file={directory / CONFIG.name}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    with running(program("prometheus"), *words, cwd=directory) as process:
        process.wait_for_output("Server is ready to receive web requests")
        yield Prometheus(f"http://127.0.0.1:{port}")


def until(reached: Any, *, every_s: float = 0.3) -> Any:
    """Wait until a function returns something true, and return that."""
    give_up = time.monotonic() + WAIT_S
    while True:
        try:
            found = reached()
        except URLError:
            found = None
        if found:
            return found
        assert time.monotonic() < give_up, reached
        time.sleep(every_s)
