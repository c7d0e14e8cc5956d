"""Kill and restart a gateway under load, and compare the reported outcomes with the sandbox's wallet."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.e2e.material import Material
from tests.linkage.where import Where, serving
from tests.ports import free_port

UP_S: Final = (0.3, 1.2)
"""The range of the random time between two kills."""


@dataclass
class Comparison:
    """The result of a comparison."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """The number of calls by reported outcome."""
    wrong: list[str] = field(default_factory=list)
    """A line for each reported outcome that contradicts the wallet."""


class KilledGateway(threading.Thread):
    """Kills a gateway and restarts it on the same port, until `stop` is called."""

    def __init__(self, kind: str, material: Material, console: str) -> None:
        super().__init__()
        self.kills = 0
        self.failure: BaseException | None = None
        self._over = threading.Event()
        self._stack = ExitStack()
        self._gateway_of = partial(serving, kind, material, console, LISTEN=f"127.0.0.1:{free_port()}")
        self.where, self._gateway = self._stack.enter_context(self._gateway_of())

    def run(self) -> None:
        """Kill and restart the gateway repeatedly."""
        try:
            while not self._over.wait(random.uniform(*UP_S)):
                os.killpg(self._gateway.running.process.pid, signal.SIGKILL)
                self._stack.close()
                _, self._gateway = self._stack.enter_context(self._gateway_of())
                self.kills += 1
        except BaseException as error:
            self.failure = error
            raise

    def stop(self) -> None:
        """Stop killing the gateway, and shut it down normally."""
        self._over.set()
        self.join()
        self._stack.close()


@contextmanager
def killing(kind: str, material: Material, console: str) -> Iterator[KilledGateway]:
    """Kill and restart a gateway repeatedly until the end of the block."""
    killed = KilledGateway(kind, material, console)
    killed.start()
    try:
        yield killed
    finally:
        killed.stop()
    assert killed.failure is None, killed.failure


def compare(results: Path, where: Where) -> Comparison:
    """Compare the callers' results with the sandbox's wallet."""
    return compare_lines(results.read_text("utf-8"), _console(where, "wallet")["requests"])


def received(where: Where) -> int:
    """Return how many requests the sandbox has received."""
    return max((entry["number"] for entry in _console(where, "requests")["requests"]), default=0)


def _console(where: Where, page: str) -> Any:
    with urllib.request.urlopen(f"{where.console}/__sandbox/{page}") as response:
        return json.load(response)


def compare_lines(results: str, wallet: dict[str, Any]) -> Comparison:
    """Compare each line of the callers' results with the wallet's record of its request."""
    comparison = Comparison()
    for line in results.splitlines():
        result = json.loads(line)
        record = wallet.get(result["method"], {}).get(result["request_id"], {"effects": 0, "repeats": 0})
        outcome = result["outcome"]
        comparison.outcomes[outcome] += 1
        if outcome not in {"OK", "rejected", "not_sent", "unknown"}:
            comparison.wrong.append(f"not an outcome: {line}")
        elif outcome != "unknown" and record["effects"] != (outcome == "OK"):
            comparison.wrong.append(f"{line}, but the wallet has {record}")
        if result["method"] == "BindAccount" and record["repeats"]:
            comparison.wrong.append(f"sent twice: {line}, {record}")
    return comparison
