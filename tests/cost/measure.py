"""Count the work of a gateway per request: `python -m tests.cost.measure [LEDGER_URL]`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import grpc.aio

from tests.e2e.caller import Reported, call
from tests.e2e.material import Material
from tests.e2e.samples import SYNC
from tests.peers.gateways import address_of, gateway_settings, sandbox
from tests.peers.processes import ROOT, WAIT_MAX_S, environment, running

REQUESTS: Final = 400
CALLERS: Final = 8


async def calls(address: str, name: str, requests: int, *, valid: bool = True) -> None:
    """Make calls with different ids, a few at a time."""
    numbers = iter(range(requests))
    async with grpc.aio.insecure_channel(address) as channel:

        async def caller() -> None:
            for number in numbers:
                own = f"{name}-{number}" if valid else ""
                request = SYNC.request(request_id=own, external_identity_value=f"{name}-{number}")
                answer = await call(channel, SYNC, request)
                assert isinstance(answer, Reported) is not valid, answer

        await asyncio.gather(*(caller() for _ in range(CALLERS)))


def counts_of(directory: Path, *, valid: bool = True, extra: str = "", **settings: str) -> dict[str, float]:
    """Run a gateway, which does some `extra` work for each request; return its counts per request."""
    material, report = Material(directory), directory / "counts.json"
    with sandbox(material) as url:
        chosen = {**gateway_settings(material, url), "LOG_LEVEL": "info", **settings}
        command = (sys.executable, "-m", "tests.cost.counted_gateway", report)
        with running(
            *command, env={**environment(chosen), "PYTHONPATH": str(ROOT), "COST_EXTRA": extra}
        ) as process:
            address = address_of(process)
            asyncio.run(calls(address, "warm-up", CALLERS * 5))
            os.kill(process.process.pid, signal.SIGUSR1)
            asyncio.run(calls(address, "counted", REQUESTS, valid=valid))
            os.kill(process.process.pid, signal.SIGUSR1)
            give_up = time.monotonic() + WAIT_MAX_S
            while not report.exists():
                assert time.monotonic() < give_up
                time.sleep(0.02)
    counts: dict[str, int] = json.loads(report.read_text("utf-8"))
    return {name: count / REQUESTS for name, count in counts.items()}


def main() -> None:
    """Print the counts, and with COST_WHERE=1 those of each function."""
    with tempfile.TemporaryDirectory() as directory:
        url = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{directory}/ledger.db"
        counts = counts_of(Path(directory), LEDGER_URL=url, valid="invalid" not in sys.argv)
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        sys.stdout.write(f"{count:8.2f}  {name.replace(f'{ROOT}/', '')}\n")


if __name__ == "__main__":
    main()
