"""Three gateways with one ledger behind one name, which are restarted one after another."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from tests.e2e.material import Material
from tests.linkage.where import Where, serving
from tests.peers.gateways import Gateway
from tests.ports import free_port

SIZE: Final = 3
WAIT_MAX_S: Final = 100.0
"""The longest wait for calls: a busy machine may take long to start a client or a gateway."""
CALLS: Final = 90
"""The number of calls from which the shares are measured."""
SHARE_MIN: Final = 0.5
"""The smallest share that a gateway must have of an equal share."""
HANDLED: Final = re.compile(
    r'^grpc_server_handled_total\{.*grpc_service="alipayhk.*\} (\S+)$', re.MULTILINE
)


class Fleet:
    """The gateways, each with an address of its own."""

    def __init__(self, material: Material, console: str, settings: dict[str, str]) -> None:
        self._material, self._console, self._settings = material, console, settings
        self._addresses = [f"127.0.0.1:{free_port()}" for _ in range(SIZE)]
        self._stacks = [ExitStack() for _ in range(SIZE)]
        self._gateways: list[Gateway] = []
        for number in range(SIZE):
            self.where, gateway = self._start(number)
            self._gateways.append(gateway)
        target = "ipv4:" + ",".join(self._addresses)
        self.where = Where({**self.where.environment, "LINKAGE_TARGET": target})

    def _start(self, number: int) -> tuple[Where, Gateway]:
        listen = {"LISTEN": self._addresses[number]}
        gateway = serving("plaintext", self._material, self._console, **self._settings, **listen)
        return self._stacks[number].enter_context(gateway)

    def restart_one_after_another(self) -> None:
        """Stop each gateway with SIGTERM, start it again on its address, and wait until it gets calls."""
        for number in range(SIZE):
            assert self._gateways[number].running.end() == 0
            self._stacks[number].close()
            _, self._gateways[number] = self._start(number)
            _wait(lambda number=number: self._handled(number) > 0)  # type: ignore[misc]

    def shares(self) -> list[float]:
        """Wait until every gateway gets calls; return the share of each in the calls after that."""
        _wait(lambda: all(self._handled(number) for number in range(SIZE)))
        before = [self._handled(number) for number in range(SIZE)]

        def counts() -> list[float]:
            return [self._handled(number) - before[number] for number in range(SIZE)]

        _wait(lambda: sum(counts()) >= CALLS)
        found = counts()
        return [count / sum(found) for count in found]

    def close(self) -> None:
        """Stop the gateways."""
        for stack in self._stacks:
            stack.close()

    def _handled(self, number: int) -> float:
        """Return how many calls of the API a gateway has handled."""
        address = self._gateways[number].settings["ADMIN_LISTEN"]
        with urllib.request.urlopen(f"http://{address}/metrics") as response:
            return sum(map(float, HANDLED.findall(response.read().decode())))


def _wait(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + WAIT_MAX_S
    while not condition():
        assert time.monotonic() < give_up, "a gateway gets no calls"
        time.sleep(0.1)


@contextmanager
def fleet(material: Material, console: str, ledger_url: str, key_file: str) -> Iterator[Fleet]:
    """Run a fleet until the end of the block."""
    settings = {
        "LEDGER_URL": ledger_url,
        "LEDGER_KEY_FILE": key_file,
        # Short, so that the clients also move at this age.
        "MAX_CONNECTION_AGE_S": "2",
        # A busy machine must not make the gateway send a request again.
        "UPSTREAM_TIMEOUT_S": "20",
    }
    gateways = Fleet(material, console, settings)
    try:
        yield gateways
    finally:
        gateways.close()
