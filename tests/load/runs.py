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

from tests.peers.processes import Running, environment, run, running

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


@dataclass(frozen=True, slots=True)
class Counting:
    """A running server that counts its calls."""

    address: str
    _process: Running

    def wait_for_calls(self, number: int) -> None:
        """Wait until so many calls have arrived, a multiple of 25."""
        self._process.wait_for_output(f"\n{number} calls")


@contextmanager
def counting(*arguments: str) -> Iterator[Counting]:
    """Run a server with known behaviour that counts its calls."""
    with running(sys.executable, "-m", "tests.load.server", *arguments) as process:
        found = re.search(r"serving on (\S+)", process.wait_for_output("serving on "))
        assert found is not None
        yield Counting(found[1], process)


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """Run a server with known behaviour; return its address."""
    with counting(*arguments) as counted:
        yield counted.address


def load(directory: Path, target: str, *flags: str, patient: bool = True) -> Ran:
    """Run the load tester, and read its JSON report."""
    written = directory / "report.json"
    written.unlink(missing_ok=True)
    command = (*CLIENT, "--target", target, "--json", str(written), *(NOISE if patient else ()), *flags)
    result = run(*command, env=environment())
    report = json.loads(written.read_text("utf-8")) if written.is_file() else {}
    return Ran(result.status, result.out, result.err, report)
