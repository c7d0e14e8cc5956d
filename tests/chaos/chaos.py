"""Run gateways under load and faults, and compare callers' outcomes with the requests AlipayHK received.

    python -m tests.chaos.chaos --kills 500 --rate 200 --gateways 2 --workers 3 --faults kill,stop,clock

The report lists each invariant, its meaning and the number of requests that break it. For the first such
requests it prints the calls, the arrivals at AlipayHK, the faults at that time, and the gateways' logs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.checker import INVARIANTS, Finding, check, counts, explain
from tests.chaos.faults import FAULTS, disturb
from tests.chaos.history import BIND, FaultWindow, History, Key
from tests.chaos.mutants import MUTANTS
from tests.chaos.person import resolve_doubts
from tests.chaos.workload import Workload, connected
from tests.chaos.world import Options, World

EXPLAINED_MAX: Final = 3
"""Maximum number of requests that the report explains for each invariant."""
LOG_LINES_SHOWN_MAX: Final = 20


@dataclass
class Report:
    """The findings and figures of one run."""

    options: Options
    history: History
    findings: list[Finding]
    took_s: float
    load_s: float
    """Time during which new requests were made, in seconds."""
    disturbed: Counter[str]
    skipped: int
    logs: list[tuple[float, str, str]] = field(default_factory=list, repr=False)
    """Time, gateway and text of the log lines that name a request of a finding."""

    @property
    def is_clean(self) -> bool:
        """Whether every invariant held."""
        return not self.findings

    @property
    def outcomes(self) -> Counter[str]:
        """Count requests by the outcome of their final call, or else of their last call."""
        last: dict[Key, str] = {}
        for call in sorted(self.history.calls, key=lambda call: (call.is_final, call.ended)):
            last[call.key] = call.outcome
        return Counter(last.values())

    def __str__(self) -> str:
        return "\n".join((*self._figures(), *self._invariants(), *self._explanations()))

    def _figures(self) -> list[str]:
        history, options = self.history, self.options
        kinds = Counter(map(_kind_of, history.faults)) + self.disturbed
        bare = Counter(call.grpc_code for call in history.calls if not call.reason and call.outcome != "OK")
        reasons = Counter(call.reason for call in history.calls if call.reason)
        shape = f"seed {options.seed}, gateways {options.gateways}, workers {options.workers} each, faults "
        carried = f"{len(history.requests) / self.load_s:.0f} of {options.rate:g} requests/s"
        return [
            f"{shape}{','.join(options.faults)}{', mutant ' * bool(options.mutant)}{options.mutant}",
            f"{len(history.requests)} requests in {len(history.calls)} calls, {self.took_s:.0f} s in all",
            f"load: {carried} for {self.load_s:.0f} s; {self.skipped} skipped: too many callers waited",
            f"sent to AlipayHK: {len(history.arrivals)}",
            f"faults: {_listed(kinds)}",
            f"outcomes: {_listed(self.outcomes)}; resolved by a person: {len(history.resolutions)}",
            f"reasons: {_listed(reasons)}; statuses without a reason: {_listed(bare)}",
            f"BindAccounts sent while the clock was wrong: {_sent_in_clock_windows(history)}",
        ]

    def _invariants(self) -> list[str]:
        found = counts(self.findings)
        return [f"  {found[each.name]:6} {each.name:13} {each.meaning}" for each in INVARIANTS]

    def _explanations(self) -> list[str]:
        lines: list[str] = []
        for finding in _explained(self.findings):
            lines += ["", f"{finding.invariant}: {' '.join(finding.key)}: {finding.text}"]
            lines += self._timeline(finding.key)
        return lines

    def _timeline(self, key: Key) -> list[str]:
        events = explain(self.history, key)
        named = f'"{key[1]}"'
        logged = [(at, f"log of {gateway}: {text}") for at, gateway, text in self.logs if named in text]
        events = sorted(events + logged[:LOG_LINES_SHOWN_MAX])
        started = events[0][0] if events else 0.0
        return [f"    {at - started:+8.3f} {text}" for at, text in events]


def _explained(findings: list[Finding]) -> list[Finding]:
    """Return the first findings of each invariant."""
    by_invariant = ([found for found in findings if found.invariant == each.name] for each in INVARIANTS)
    return [found for ours in by_invariant for found in ours[:EXPLAINED_MAX]]


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items())) or "none"


def _kind_of(fault: FaultWindow) -> str:
    return f"clock {fault.detail}" if fault.kind == "clock" else fault.kind


def _sent_in_clock_windows(history: History) -> int:
    windows: list[FaultWindow] = [fault for fault in history.faults if fault.kind == "clock"]
    return sum(
        arrival.key[0] == BIND and any(window.started <= arrival.at <= window.ended for window in windows)
        for arrival in history.arrivals
    )


async def run(options: Options) -> Report:
    """Make calls while faults happen, wait until every caller knows its outcome, and check the history."""
    with tempfile.TemporaryDirectory(prefix="alipayhk-chaos-") as directory:
        world = World(options, Path(directory))
        started = time.monotonic()
        try:
            await world.start()
            workload = await _load(world)
            world.history.linkages = _linkages(world)
        finally:
            await world.stop()
    findings = check(world.history)
    return Report(
        options,
        world.history,
        findings,
        time.monotonic() - started,
        workload.load_s,
        world.proxy.given,
        workload.skipped,
        _logs_of(world, {finding.key[1] for finding in _explained(findings)}),
    )


async def _load(world: World) -> Workload:
    person = asyncio.create_task(resolve_doubts(world))
    try:
        async with connected(world) as workload:
            faults = asyncio.create_task(disturb(world))
            try:
                await workload.run(faults)
            finally:
                faults.cancel()
            return workload
    finally:
        if person.done():
            person.result()
        person.cancel()
        with suppress(asyncio.CancelledError):
            await person


def _linkages(world: World) -> dict[str, int]:
    linkages = world.wallet()["linkages"]
    return {f"{held['externalIdentityValue']}|{held['userId']}": held["bizTime"] for held in linkages}


def _logs_of(world: World, request_ids: set[str]) -> list[tuple[float, str, str]]:
    return [
        (at, gateway.name, text)
        for gateway in world.gateways
        for at, text in gateway.logs
        if any(f'"{request_id}"' in text for request_id in request_ids)
    ]


def main() -> int:
    """Run from the command line; return 0 if every invariant held."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0] if __doc__ else "",
        epilog=f"Mutants: {'; '.join(f'{name}: {each.what}' for name, each in MUTANTS.items())}.",
    )
    parser.add_argument("--kills", type=int, default=500, help="how many kills end the run")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a run without kills lasts")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--gateways", type=int, default=2, help="on one ledger")
    parser.add_argument("--workers", type=int, default=1, help="of each gateway")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", default=",".join(FAULTS), help="any of %(default)s")
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS], help="switch one rule off")
    args = parser.parse_args()
    faults = tuple(filter(None, args.faults.split(",")))
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"--faults: {', '.join(sorted(unknown))}: must be of {', '.join(FAULTS)}")
    options = Options(
        faults,
        gateways=args.gateways,
        workers=args.workers,
        kills=args.kills,
        seconds=args.seconds,
        rate=args.rate,
        seed=args.seed,
        mutant=args.mutant,
    )
    report = asyncio.run(run(options))
    print(report)  # noqa: T201
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
