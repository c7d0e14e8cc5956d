"""Run gateways under load and faults, and compare callers' outcomes with the requests AlipayHK received.

    python -m tests.chaos.chaos --kills 500 --rate 200 --gateways 2 --workers 3 --faults kill,stop,clock

The report lists each invariant, its meaning and the number of requests that break it. For the first such
requests it prints the calls, the arrivals at AlipayHK, the faults at that time, and the gateways' logs. The
history is checked during the run, too, and the first finding ends the run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.chaos.checker import INVARIANTS, Finding, check, counts, explain
from tests.chaos.faults import FAULTS, disturb
from tests.chaos.history import BIND, FaultWindow, History, Key
from tests.chaos.mutants import MUTANTS
from tests.chaos.person import resolve_doubts
from tests.chaos.rows import note_stalls
from tests.chaos.workload import Workload, connected
from tests.chaos.world import SQLITE, Options, World

CHECK_EVERY_S: Final = 2.0
CHECK_SHARE: Final = 0.1
"""Maximum share of the time that checks take during the run."""
PROGRESS_EVERY_S: Final = 60.0
EXPLAINED_MAX: Final = 3
"""Maximum number of requests that the report explains for each invariant."""
LOG_LINES_SHOWN_MAX: Final = 20

Result = TypeVar("Result")


@dataclass
class Report:
    """The findings and figures of one run."""

    options: Options
    history: History
    findings: list[Finding]
    took_s: float
    load_s: float
    """Time during which new requests were made, in seconds."""
    kills: int
    noticed_s: float | None
    """Time from the start until a finding ended the run, in seconds; None if the run was not ended."""
    disturbed: Counter[str]
    skipped: int
    logs: list[tuple[float, str, str]] = field(default_factory=list, repr=False)
    """Time, gateway and text of the log lines that name a request of a finding."""

    @property
    def is_clean(self) -> bool:
        """Whether every invariant held."""
        return not self.findings

    def noticed(self) -> str:
        """Return what broke, and after how long."""
        names = ", ".join(name for name, count in counts(self.findings).items() if count)
        noticed_s = self.took_s if self.noticed_s is None else self.noticed_s
        return f"after {noticed_s:.0f} s and {self.kills} kills: {names or 'nothing noticed'}"

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
        shape = f"seed {options.seed}, ledger {options.ledger}, gateways {options.gateways}, "
        shape += f"workers {options.workers} each, faults "
        carried = f"{len(history.requests) / self.load_s:.0f} of {options.rate:g} requests/s"
        lines = [
            f"{shape}{','.join(options.faults)}{', mutant ' * bool(options.mutant)}{options.mutant}",
            f"{len(history.requests)} requests in {len(history.calls)} calls, {self.took_s:.0f} s in all",
            f"load: {carried} for {self.load_s:.0f} s; {self.skipped} skipped: too many callers waited",
            f"sent to AlipayHK: {len(history.arrivals)}",
            f"faults: {_listed(kinds)}",
            "" if self.noticed_s is None else f"ENDED {self.noticed()}",
            f"outcomes: {_listed(self.outcomes)}; resolved by a person: {len(history.resolutions)}",
            f"reasons: {_listed(reasons)}; statuses without a reason: {_listed(bare)}",
            f"BindAccounts sent while the clock was wrong: {_sent_in_clock_windows(history)}",
        ]
        return [line for line in lines if line]

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
    noticed_s = None
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="alipayhk-chaos-") as directory:
        world = World(options, Path(directory))
        try:
            await world.start()
            workload, findings = await _load(world)
            if findings:
                noticed_s = time.monotonic() - started
            else:
                world.history.linkages = _linkages(world)
        finally:
            await world.stop()
    findings = findings or check(world.history)
    return Report(
        options,
        world.history,
        findings,
        time.monotonic() - started,
        workload.load_s,
        world.kills,
        noticed_s,
        world.proxy.given,
        workload.skipped,
        _logs_of(world, {finding.key[1] for finding in _explained(findings)}),
    )


async def _load(world: World) -> tuple[Workload, list[Finding]]:
    """Make calls while faults happen, until every caller is done; or until the first findings."""
    async with AsyncExitStack() as stack:
        ledger = world.open_ledger()
        stack.push_async_callback(ledger.close)
        person = await stack.enter_async_context(_running(resolve_doubts(world, ledger)))
        await stack.enter_async_context(_running(note_stalls(world, ledger)))
        workload = await stack.enter_async_context(connected(world))
        faults = await stack.enter_async_context(_running(disturb(world, ledger)))
        load = await stack.enter_async_context(_running(workload.run(faults)))
        findings = await stack.enter_async_context(_running(_first_findings(world.history)))
        await stack.enter_async_context(_running(_show_progress(world)))
        await asyncio.wait({person, load, findings}, return_when=asyncio.FIRST_COMPLETED)
        if findings.done():
            return workload, findings.result()
        (person if person.done() else load).result()
        return workload, []


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, Result]) -> AsyncIterator[asyncio.Task[Result]]:
    """Run a task inside the block; cancel it at the end and wait for it."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _first_findings(history: History) -> list[Finding]:
    """Check the history again and again; return the first findings that the next check confirms.

    A fault that excuses a finding can be recorded a little later than the finding.
    """
    before: set[tuple[str, Key]] = set()
    pause_s = CHECK_EVERY_S
    while True:
        await asyncio.sleep(pause_s)
        began = time.monotonic()
        found = await asyncio.to_thread(check, history.copy(), ended=False)
        confirmed = [finding for finding in found if (finding.invariant, finding.key) in before]
        if confirmed:
            return confirmed
        before = {(finding.invariant, finding.key) for finding in found}
        pause_s = max(CHECK_EVERY_S, (time.monotonic() - began) / CHECK_SHARE)


async def _show_progress(world: World) -> None:
    """Print from time to time how far the run is."""
    while True:
        await asyncio.sleep(PROGRESS_EVERY_S)
        calls = len(world.history.calls)
        print(f"{world.kills} of {world.options.kills} kills, {calls} calls", file=sys.stderr)  # noqa: T201


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


def parser() -> argparse.ArgumentParser:
    """Return a parser for the options of a run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=500, help="how many kills end the run")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a run without kills lasts")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--gateways", type=int, default=2, help="on one ledger")
    parser.add_argument("--workers", type=int, default=1, help="of each gateway")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ledger", default=SQLITE, choices=FAULTS)
    lists = "; ".join(f"with {ledger}: {','.join(faults)}" for ledger, faults in FAULTS.items())
    parser.add_argument("--faults", help=f"by default all of the ledger; {lists}")
    return parser


def options_of(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> Options:
    """Return the options that the arguments give."""
    known = FAULTS[arguments["ledger"]]
    faults = tuple(filter(None, (arguments.pop("faults") or ",".join(known)).split(",")))
    if unknown := set(faults) - set(known):
        parser.error(f"--faults: {', '.join(sorted(unknown))}: must be of {', '.join(known)}")
    return Options(faults, **arguments)


def main() -> int:
    """Run from the command line; return 0 if every invariant held."""
    ours = parser()
    ours.epilog = f"Mutants: {'; '.join(f'{name}: {each.what}' for name, each in MUTANTS.items())}."
    ours.add_argument("--mutant", default="", choices=["", *MUTANTS], help="switch one rule off")
    report = asyncio.run(run(options_of(ours, vars(ours.parse_args()))))
    print(report)  # noqa: T201
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
