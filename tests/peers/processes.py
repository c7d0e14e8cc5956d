"""Programs run as people run them: to their end, or beside the test until it is done with them."""

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
PATIENCE_S: Final = 60.0
"""For machines on which much else is going on."""

Words = Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that has ended."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Everything that it said."""
        return self.out + self.err


@dataclass(frozen=True, slots=True)
class Running:
    """A program that goes on."""

    process: subprocess.Popen[bytes]
    _log: IO[bytes]

    def said(self) -> str:
        """Return everything that it has said so far."""
        return Path(self._log.name).read_text("utf-8")

    def wait_until_says(self, words: str) -> str:
        """Wait until it has said these words; return everything that it has said."""
        give_up = time.monotonic() + PATIENCE_S
        while words not in (said := self.said()):
            assert self.process.poll() is None, f"it ended: {said}"
            assert time.monotonic() < give_up, f"it never says {words!r}: {said}"
            time.sleep(0.02)
        return said

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and to everything that it started."""
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Ask it to end; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with these settings and no other ones."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return rest | {PREFIX + name: value for name, value in (settings or {}).items()}


def run(
    *words: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    patience_s: float = PATIENCE_S,
) -> Ended:
    """Run a program to its end."""
    done = subprocess.run(
        words,
        env=environment() if env is None else env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=patience_s,
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def running(
    *words: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[Running]:
    """Run a program until the end of the block; whatever it started ends with it."""
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
                    process.wait(PATIENCE_S)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
