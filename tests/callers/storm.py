"""A gateway that is killed and started again, and what callers were told beside what took effect."""

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
"""How long a gateway is left alone between two kills."""


@dataclass
class Found:
    """What a comparison of callers with the wallet finds."""

    reported: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Mortal(threading.Thread):
    """Kills a gateway and starts it anew on its port, until it is told to stop."""

    def __init__(self, kind: str, material: Material, console: str) -> None:
        super().__init__()
        self.kills = 0
        self.failure: BaseException | None = None
        self._over = threading.Event()
        self._stack = ExitStack()
        self._gateway_of = partial(serving, kind, material, console, LISTEN=f"127.0.0.1:{free_port()}")
        self.where, self._gateway = self._stack.enter_context(self._gateway_of())

    def run(self) -> None:
        """Kill and start, again and again."""
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
        """Let it be, and stop it as one should."""
        self._over.set()
        self.join()
        self._stack.close()


@contextmanager
def killing(kind: str, material: Material, console: str) -> Iterator[Mortal]:
    """Kill a gateway again and again until the end of the block."""
    mortal = Mortal(kind, material, console)
    mortal.start()
    try:
        yield mortal
    finally:
        mortal.stop()
    assert mortal.failure is None, mortal.failure


def compare(reported: Path, where: Where) -> Found:
    """Compare what callers wrote down with what the wallet remembers."""
    with urllib.request.urlopen(f"{where.console}/__sandbox/wallet") as answer:
        return judge(reported.read_text("utf-8"), json.load(answer)["requests"])


def judge(reported: str, wallet: dict[str, Any]) -> Found:
    """Hold each line of what callers were told to what the wallet remembers of its request."""
    found = Found()
    for line in reported.splitlines():
        said = json.loads(line)
        known = wallet.get(said["method"], {}).get(said["request_id"], {"effects": 0, "repeats": 0})
        found.reported[said["outcome"]] += 1
        if said["outcome"] not in {"OK", "rejected", "not_sent", "unknown"}:
            found.wrong.append(f"no outcome: {line}")
        elif said["outcome"] != "unknown" and known["effects"] != (said["outcome"] == "OK"):
            found.wrong.append(f"{line}, and the wallet says {known}")
        if said["method"] == "BindAccount" and known["repeats"]:
            found.wrong.append(f"it was sent twice: {line}, {known}")
    return found
