"""Run plans one after the other: seeds, mutants, traces, and shorter plans that fail in the same way."""

from __future__ import annotations

import gc
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
import structlog

from .checker import Finding, check
from .disk import Disk
from .mutants import MUTANTS
from .network import Treatment
from .plan import Plan, drawn
from .postgres_mutants import POSTGRES_MUTANTS
from .postgres_plan import on_postgres
from .postgres_session import Address, Session
from .store import Fault
from .world import World

MEMORY: Final = Path("/dev/shm")
BAD_EVENTS: Final = {
    "illegal state transition",
    "unhandled exception in delivery task",
    "ledger maintenance failed",
}


@dataclass
class Result:
    """What a run broke, and its trace."""

    findings: list[Finding]
    trace: list[str] = field(default_factory=list)


class Simulator:
    """Runs plans in this process. Make it with `simulator`."""

    def __init__(self, directory: Path, disk: Disk, bad_events: list[str], session: Session | None) -> None:
        self._directory, self._disk, self._bad_events = directory, disk, bad_events
        self._session = session

    def plan(self, seed: int) -> Plan:
        """Draw the plan of a seed, for the ledger that is simulated."""
        return drawn(seed) if self._session is None else on_postgres(drawn(seed))

    def run(self, plan: Plan, *, mutant: str = "", tracing: bool = False) -> Result:
        """Run a plan."""
        self._bad_events.clear()
        with pytest.MonkeyPatch.context() as patch:
            if mutant:
                (MUTANTS | POSTGRES_MUTANTS)[mutant].make(patch)
            world = World(plan, self._directory, self._disk, self._session, tracing=tracing)
            world.run()
            world.complaints += self._bad_events
            result = Result(check(world), [_line(world, *one) for one in world.trace])
        del world
        gc.collect()
        return result

    def fails_alike(self, plan: Plan, invariant: str, mutant: str) -> bool:
        """Return whether a plan breaks an invariant."""
        return any(finding.invariant == invariant for finding in self.run(plan, mutant=mutant).findings)

    def shortened(self, plan: Plan, invariant: str, mutant: str = "") -> Plan:
        """Return a shorter plan that breaks the same invariant."""

        def fails(changed: Plan) -> bool:
            return self.fails_alike(changed, invariant, mutant)

        before = None
        while plan != before:
            before = plan
            for name in ("calls", "events", "verdicts"):
                plan = _fewer(plan, name, fails)
            for name, usual in (("connects", ""), ("treatments", Treatment()), ("faults", Fault())):
                plan = _usual(plan, name, usual, fails)
        return plan


@contextmanager
def simulator(postgres: Address | None = None) -> Iterator[Simulator]:
    """Prepare the disk and the log, and collect garbage only between two runs, so that they are alike.

    Plans with a store on PostgreSQL need the address of a server.
    """
    bad_events: list[str] = []

    def noted(_: Any, __: str, event: MutableMapping[str, Any]) -> Any:
        if event["event"] in BAD_EVENTS:
            bad_events.append(f"{event['event']}: {event.get('where', '')}{event.get('stack', '')}")
        raise structlog.DropEvent

    level = logging.root.manager.disable
    logging.disable()
    structlog.configure([noted], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    gc.collect()
    gc.freeze()
    gc.disable()
    parent = MEMORY if MEMORY.is_dir() else None
    try:
        with (
            tempfile.TemporaryDirectory(dir=parent) as directory,
            Disk().watch() as disk,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", ResourceWarning)
            place = Path(directory) / "files"
            place.mkdir()
            with nullcontext() if postgres is None else closing(Session(postgres)) as session:
                yield Simulator(place, disk, bad_events, session)
    finally:
        gc.enable()
        gc.unfreeze()
        structlog.reset_defaults()
        logging.disable(level)


def _line(world: World, at_s: float, what: tuple[Any, ...]) -> str:
    return f"{at_s - world.start_s:12.4f}  {' '.join(map(str, what))}"


def _fewer(plan: Plan, name: str, fails: Callable[[Plan], bool]) -> Plan:
    """Leave out as much as possible, half of it first: Zeller's ddmin without its complements."""
    size = max(len(getattr(plan, name)) // 2, 1)
    while size:
        at = 0
        while at < len(ones := getattr(plan, name)):
            shorter = _with(plan, name, ones[:at] + ones[at + size :])
            plan, at = (shorter, at) if fails(shorter) else (plan, at + size)
        size //= 2
    return plan


def _usual(plan: Plan, name: str, usual: Any, fails: Callable[[Plan], bool]) -> Plan:
    """Replace as many faults as possible by what is usual."""
    size = len(getattr(plan, name))
    while size:
        for at in range(0, len(getattr(plan, name)), size):
            ones = getattr(plan, name)
            calmer = _with(plan, name, ones[:at] + (usual,) * len(ones[at : at + size]) + ones[at + size :])
            plan = calmer if calmer != plan and fails(calmer) else plan
        size //= 2
    ones = getattr(plan, name)
    while ones and ones[-1] == usual:
        ones = ones[:-1]
    return _with(plan, name, ones)


def _with(plan: Plan, name: str, ones: tuple[Any, ...]) -> Plan:
    changes: dict[str, Any] = {name: ones}
    return replace(plan, **changes)
