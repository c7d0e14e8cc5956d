"""Measure the gateway under more load than its capacity: `python -m bench.overload [--rounds N]`.

The gateway runs on one core, and the sandbox and the load tester share another one. Each round measures the
capacity in a closed loop, then offers multiples of it in an open loop, so that the ratios are valid even if
the speed of the machine varies. At the end, thousands of calls are made concurrently, from one connection
and from many.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from bench.machine import core
from tests.e2e.caller import Reported, call
from tests.e2e.material import Material
from tests.e2e.samples import SYNC
from tests.load.runs import CLIENT
from tests.peers.gateways import gateway, sandbox
from tests.peers.processes import environment, run

DEADLINE_S: Final = 5.0
BURST_DEADLINE_S: Final = 20.0
MULTIPLES: Final = (1.0, 2.0, 3.0)
CHANNEL: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
"""With these options, each channel has its own connection."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one run of the load tester."""

    rate: float
    """Successes per second."""
    kinds: Counter[str]
    """The number of calls by reason, or by code for a status without a reason."""
    p50_ms: float
    p99_ms: float


def offered(target: str, seconds: float, *flags: str) -> Figures:
    """Run the load tester."""
    fixed = ("--late-after", "10s", "--deadline", f"{DEADLINE_S:g}s", "--warm-up", "1s")
    command = (*CLIENT, "--target", target, *fixed, "--duration", f"{seconds:g}s", *flags)
    report = json.loads(run(*command, "--json", env=environment()).out)
    latency = report["success"]["latency"]
    kinds: Counter[str] = Counter()
    for row in report["outcomes"]:
        kinds[row["reason"] or row["code"]] += row["count"]
    return Figures(report["rates"]["succeeded"], kinds, latency["p50_us"] / 1e3, latency["p99_us"] / 1e3)


async def burst(target: str, calls: int, connections: int) -> Counter[str]:
    """Make concurrent calls; count them by reason, or by code for a status without a reason."""
    channels = [grpc.aio.insecure_channel(target, options=CHANNEL) for _ in range(connections)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))

    async def one(number: int) -> str:
        own = f"burst-{uuid.uuid4()}"
        request = SYNC.request(request_id=own, external_identity_value=own)
        answer = await call(channels[number % connections], SYNC, request, timeout_s=BURST_DEADLINE_S)
        if not isinstance(answer, Reported):
            return "OK"
        return answer.info.reason if answer.status.details else f"bare {answer.code.name}"

    kinds = Counter(await asyncio.gather(*(one(number) for number in range(calls))))
    await asyncio.gather(*(channel.close() for channel in channels))
    return kinds


@contextmanager
def serving() -> Iterator[str]:
    """Run a gateway with an SQLite ledger on one core, and the sandbox on another one."""
    with tempfile.TemporaryDirectory() as directory:
        material = Material(Path(directory))
        ledger = {"LEDGER_URL": f"sqlite:///{directory}/ledger.db", "BIND_ACCOUNT_WITHOUT_LEDGER": "false"}
        with ExitStack() as stack:
            with core(1):
                url = stack.enter_context(sandbox(material))
            with core(0):
                served = stack.enter_context(gateway(material, url, LOG_LEVEL="info", **ledger))
            yield served.address


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=6000, help="number of concurrent calls")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 60])
    args = parser.parse_args()
    with serving() as target, core(1):
        goodputs: dict[float, list[float]] = {multiple: [] for multiple in MULTIPLES}
        for _ in range(args.rounds):
            capacity = offered(target, args.seconds, "--closed", "-c", "32").rate
            print(f"capacity {capacity:.0f}/s")
            for multiple in MULTIPLES:
                goodputs[multiple].append(row(target, args.seconds, capacity, multiple))
        for multiple, goodput in goodputs.items():
            print(f"{multiple:g}x: goodput {statistics.median(goodput):.2f} of capacity (median)")
        for connections in args.connections:
            start = time.monotonic()
            kinds = asyncio.run(burst(target, args.calls, connections))
            took_s = time.monotonic() - start
            print(
                f"{args.calls} concurrent calls, {connections} connections, {took_s:.1f} s: {dict(kinds)}"
            )
    return 0


def row(target: str, seconds: float, capacity: float, multiple: float) -> float:
    """Offer a multiple of the capacity and print the figures; return goodput divided by capacity."""
    figures = offered(target, seconds, "--rate", f"{capacity * multiple:.0f}", "--max-in-flight", "20000")
    share = figures.rate / capacity
    times = f"p50 {figures.p50_ms:6.0f} ms  p99 {figures.p99_ms:6.0f} ms"
    print(f"  {multiple:g}x  goodput {share:.2f}  {times}  {dict(figures.kinds)}", flush=True)
    time.sleep(1.0)
    return share


if __name__ == "__main__":
    sys.exit(main())
