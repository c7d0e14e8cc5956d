"""Fuzz the targets: `python -m tests.fuzz [--minutes N | --runs N] [TARGET …]`, `make fuzz MINUTES=N`.

Each target runs in a process of its own, as many at a time as there are cores. A failed property is printed
with its input and the command that runs the input again. The exit status is 1 then.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import os
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

INSTRUMENTED: Final = ["clients", "service", "sandbox", "tomllib"]
"""Packages whose branches guide the fuzzer."""
WORK: Final = Path(__file__).resolve().parents[2] / "build" / "fuzz"
INPUT_BYTES_MAX: Final = 4096
INPUT_S_MAX: Final = 20
MEMORY_MB_MAX: Final = 2048
FAULT_STATUS: Final = 77
LOG_LINES_SHOWN: Final = 25
_PROGRESS: Final = re.compile(r"^#(\d+)\s+(\w+)\s+cov: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Limits:
    """How long each target runs, and the seed of its random numbers."""

    seconds: int
    """0 for no limit of time."""
    runs: int
    """-1 for no limit of executions."""
    seed: int


@dataclass(frozen=True)
class Job:
    """One target with its directories."""

    name: str
    directory: Path

    @property
    def log(self) -> Path:
        """The output of its process."""
        return self.directory / "log.txt"

    def prepare(self, target: Target) -> None:
        """Create its directories, with its seeds, and without the results of an earlier run."""
        for name in ("seeds", "found"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for name in ("seeds", "found", "corpus"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds()):
            (self.directory / "seeds" / f"{number:03}").write_bytes(seed)

    def start(self, target: Target, limits: Limits) -> int:
        """Start its process; return the process's id."""
        self.prepare(target)
        if pid := os.fork():
            return pid
        try:
            output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            self._fuzz(target, limits)
        except BaseException:  # noqa: BLE001  (no error may leave the new process)
            traceback.print_exc()
        finally:
            os._exit(1)

    def _fuzz(self, target: Target, limits: Limits) -> None:
        import atheris  # noqa: PLC0415  (replaying an input does not need it)

        options = [
            f"-runs={limits.runs}",
            f"-max_total_time={limits.seconds}",
            f"-seed={limits.seed}",
            f"-max_len={INPUT_BYTES_MAX}",
            f"-timeout={INPUT_S_MAX}",
            f"-report_slow_units={INPUT_S_MAX}",
            f"-rss_limit_mb={MEMORY_MB_MAX}",
            f"-artifact_prefix={self.directory}/found/",
        ]
        directories = [str(self.directory / name) for name in ("corpus", "seeds")]
        atheris.Setup([self.name, *options, *directories], partial(self._run, target))
        atheris.Fuzz()

    def _run(self, target: Target, data: bytes) -> None:
        """Run one input; if it fails, keep it and stop: atheris would stop without keeping it."""
        try:
            target.run(data)
        except BaseException:  # noqa: BLE001  (every error is a fault)
            (self.directory / "found" / "fault").write_bytes(data)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(FAULT_STATUS)

    def report(self, status: int) -> bool:
        """Print what it did and found; return whether every property held."""
        log = self.log.read_text("utf-8", "replace")
        progress = [(int(run), kind, int(covered)) for run, kind, covered in _PROGRESS.findall(log)]
        first = next((covered for _, kind, covered in progress if kind == "INITED"), 0)
        executed, covered = (progress[-1][0], progress[-1][2]) if progress else (0, 0)
        inputs = sorted((self.directory / "found").iterdir())
        held = status == 0 and not inputs
        outcome = "ok" if held else f"FAILED (status {os.waitstatus_to_exitcode(status)})"
        print(f"{self.name:24} {executed:>10} {covered:>8} {covered - first:>8}   {outcome}", flush=True)
        if not held:
            print("\n".join(log.splitlines()[-LOG_LINES_SHOWN:]))
        for path in inputs:
            text = base64.b64encode(path.read_bytes()).decode()
            command = f"{sys.executable} -m tests.fuzz {self.name} --replay '{text}'"
            print(f"\ninput: {text}\nrun it again: {command}\n")
        return held


def fuzz(table: Mapping[str, Target], directory: Path, limits: Limits, *, jobs: int) -> bool:
    """Run the targets, `jobs` at a time; return whether every property held."""
    print(f"{'target':24} {'executions':>10} {'branches':>8} {'new':>8}", flush=True)
    waiting, running, held = [*table], dict[int, Job](), True
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            job = Job(name, directory / name)
            running[job.start(table[job.name], limits)] = job
        pid, status = os.wait()
        held &= running.pop(pid).report(status)
    return held


def main(arguments: Sequence[str] | None = None, table: Mapping[str, Target] | None = None) -> int:
    """Fuzz, or run one input again; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="names of targets; all, if there are none")
    parser.add_argument("--minutes", type=float, default=10, help="time for all targets together")
    parser.add_argument("--runs", type=int, default=-1, help="executions of each target instead of a time")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers; 0 chooses one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--replay", type=_bytes, help="run one input, in base64, of one target")
    options = parser.parse_args(arguments)
    if table is None:
        table = _instrumented() if options.replay is None else _table()
    if unknown := set(options.targets) - set(table):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    chosen = {name: table[name] for name in options.targets or table}
    if options.replay is not None:
        if len(options.targets) != 1:
            parser.error("--replay needs one target")
        chosen[options.targets[0]].run(options.replay)
        print("The property holds.")
        return 0
    seed = options.seed or random.randrange(1, 2**31)
    if options.runs >= 0:
        with tempfile.TemporaryDirectory() as directory:
            limits = Limits(0, options.runs, seed)
            return 0 if fuzz(chosen, Path(directory), limits, jobs=options.jobs) else 1
    seconds = max(int(options.minutes * 60 * options.jobs / len(chosen)), 1)
    return 0 if fuzz(chosen, WORK, Limits(seconds, -1, seed), jobs=options.jobs) else 1


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise argparse.ArgumentTypeError("must be base64") from None


def _table() -> Mapping[str, Target]:
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415  (after the instrumentation has started)

    return TARGETS


def _instrumented() -> Mapping[str, Target]:
    """Import the targets so that the fuzzer sees the branches of the project."""
    import atheris  # noqa: PLC0415  (replaying an input does not need it)

    with atheris.instrument_imports(include=INSTRUMENTED):
        return _table()


if __name__ == "__main__":
    sys.exit(main())
