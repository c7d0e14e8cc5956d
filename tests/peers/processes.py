"""Programs run as a user runs them: until they exit, or in the background of a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parents[2]
GATEWAY: Final = Path(sys.executable).parent / "alipayhk-gateway"
PREFIX: Final = "ALIPAYHK_"
WAIT_MAX_S: Final = 60.0
"""Long enough for a busy machine, in seconds."""

Words = Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has exited."""

    status: int
    out: str
    err: str

    @property
    def output(self) -> str:
        """The whole output."""
        return self.out + self.err


@dataclass(frozen=True, slots=True)
class Running:
    """A program that still runs."""

    process: subprocess.Popen[bytes]
    _log: IO[bytes]

    def output(self) -> str:
        """Return the output so far."""
        return Path(self._log.name).read_text("utf-8")

    def wait_for_output(self, words: str) -> str:
        """Wait until the output contains these words; return the output so far."""
        give_up = time.monotonic() + WAIT_MAX_S
        while words not in (output := self.output()):
            assert self.process.poll() is None, f"the program exited: {output}"
            assert time.monotonic() < give_up, f"{words!r} is missing in the output: {output}"
            time.sleep(0.02)
        return output

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and to the processes that it started."""
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Send SIGTERM; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_MAX_S)


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment, with these settings of the gateway, no others, and no traces."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "OTEL_"))}
    return rest | {PREFIX + name: value for name, value in (settings or {}).items()}


def run(
    *words: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    timeout_s: float = WAIT_MAX_S,
) -> Completed:
    """Run a program until it exits."""
    done = subprocess.run(
        words,
        env=environment() if env is None else env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=timeout_s,
    )
    return Completed(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def running(
    *words: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[Running]:
    """Run a program until the block is left; then stop it and the processes that it started."""
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(
            words,
            env=environment() if env is None else env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Running(process, log)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(WAIT_MAX_S)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
