"""Run the load tester from its command line, and servers for it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.peers.processes import environment, run, running

CLIENT: Final = (sys.executable, "-P", "-m", "alipayhk_linkage", "load")
NOISE: Final = ("--late-after", "1s")
"""A busy machine must not fail tests of other features."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a run."""

    status: int
    out: str
    err: str
    report: dict[str, Any]

    def p99_ms(self, measure: str = "latency", group: str = "success") -> float:
        return float(self.report[group][measure]["p99_us"]) / 1000


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """Run a server with known behaviour; return its address."""
    with running(sys.executable, "-m", "tests.load.server", *arguments) as process:
        found = re.search(r"serving on (\S+)", process.wait_for_output("serving on "))
        assert found is not None
        yield found[1]


def load(directory: Path, target: str, *flags: str, patient: bool = True) -> Ran:
    """Run the load tester, and read its JSON report."""
    written = directory / "report.json"
    written.unlink(missing_ok=True)
    command = (*CLIENT, "--target", target, "--json", str(written), *(NOISE if patient else ()), *flags)
    result = run(*command, env=environment())
    report = json.loads(written.read_text("utf-8")) if written.is_file() else {}
    return Ran(result.status, result.out, result.err, report)
