"""Server programs in a temporary directory, and the guard that kills them and removes the directory.

Every process of a server has the server's directory as its working directory, so it is found there, even if
the process that started it is gone. The guard is a process of its own: it does its work when `Home.close`
closes its standard input or when the tests are gone, killed or not.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

USER: Final = "postgres"
"""The user of the servers if the tests run as root, because PostgreSQL refuses to run as root."""
WAIT_MAX_S: Final = 60.0
"""Long enough for a busy machine, in seconds."""


def processes_in(directory: Path) -> list[int]:
    """Return the ids of the processes whose working directory is this one or one below it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's process, or one that has exited
            if (process / "cwd").readlink().is_relative_to(directory):
                found.append(int(process.name))
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to the processes that still exist."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not stopped by a signal."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "TZX"


def freeze(pids: Iterable[int]) -> None:
    """Stop processes with SIGSTOP, and wait until the last one runs no more instructions."""
    pids = list(pids)
    send(pids, signal.SIGSTOP)
    while any(map(is_running, pids)):
        time.sleep(0.001)


def kill(directory: Path) -> None:
    """Kill the processes of a directory until there are no more."""
    while pids := processes_in(directory):
        send(pids, signal.SIGKILL)
        time.sleep(0.005)


def user() -> pwd.struct_passwd | None:
    """Return the user of the servers, or None if it is the user of the tests."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        message = f"The user {USER} is missing: install Debian's package postgresql, which creates it."
        raise AssertionError(message) from None


class Home:
    """A directory for servers. `close`, and the end of this process, kill the servers and remove it."""

    def __init__(self) -> None:
        owner = user()
        self.path: Final = Path(tempfile.mkdtemp(prefix="postgres-")).resolve()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self.path], stdin=subprocess.PIPE, start_new_session=True
        )
        self._processes: list[subprocess.Popen[bytes]] = []
        self._how: dict[str, Any] = {"env": {"LC_ALL": "C", "TZ": "UTC"}}
        self._as_user: tuple[str, ...] = ()
        if owner:
            os.chown(self.path, owner.pw_uid, owner.pw_gid)
            # Not the argument `user` of Popen: with it Python forks, and gRPC's fork handlers end the child
            # in a process with open channels; without it Python uses vfork, which calls no handlers.
            ids = (f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups")
            self._as_user = ("/usr/bin/setpriv", *ids)

    def run(self, *words: str | Path, text: str = "") -> str:
        """Run a program with this text as its standard input; return its standard output."""
        how = self._how | {"cwd": self.path, "capture_output": True, "timeout": WAIT_MAX_S}
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            (*self._as_user, *words), input=text.encode(), check=False, **how
        )
        assert done.returncode == 0, f"{words[0]} failed: {done.stderr.decode()}"
        return done.stdout.decode()

    def start(self, directory: Path, *words: str | Path) -> subprocess.Popen[bytes]:
        """Start a server that works in this directory; its output is appended to `<directory>.log`."""
        with directory.with_suffix(".log").open("ab") as log:
            how = {**self._how, "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            words = (*self._as_user, *words)
            process = subprocess.Popen(words, cwd=directory, start_new_session=True, **how)
        self._processes.append(process)
        return process

    def close(self) -> None:
        """Kill the servers and remove the directory."""
        self._guard.communicate(timeout=WAIT_MAX_S)
        assert self._guard.returncode == 0, "The guard of the servers failed."
        for process in self._processes:
            process.wait(WAIT_MAX_S)


class Server:
    """A server program that works in its own directory of a home."""

    def __init__(self, home: Home, directory: Path, port: int) -> None:
        self.home: Final = home
        self.directory: Final = directory
        self.port: Final = port
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill every server of the home, and remove their files."""
        self.home.close()

    def log(self) -> str:
        """Return what the server wrote to its log."""
        return self.directory.with_suffix(".log").read_text("utf-8", errors="replace")

    def freeze(self) -> None:
        """Stop every process of the server, as if the machine hung; connections stay open."""
        freeze([self._process.pid])  # first, so that it starts no process that would be missed
        freeze(processes_in(self.directory))

    def thaw(self) -> None:
        """Let a frozen server continue."""
        send(processes_in(self.directory), signal.SIGCONT)

    def kill(self) -> None:
        """Kill every process of the server at the same moment with SIGKILL."""
        self.freeze()
        kill(self.directory)
        self._process.wait(WAIT_MAX_S)

    def _stop(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        self._process.wait(WAIT_MAX_S)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition of the running server."""
        give_up = time.monotonic() + WAIT_MAX_S
        while not condition():
            assert self._process.poll() is None, f"The server exited: {self.log()}"
            assert time.monotonic() < give_up, f"The server is not ready: {self.log()}"
            time.sleep(0.01)


def remove(home: Path) -> None:
    """Kill the servers of a home, and remove its files and the shared memory that killed servers left."""
    kill(home)
    for file in home.glob("*/postmaster.pid"):
        words = file.read_text("ascii").splitlines()[6].split()  # the key and the id of the segment
        subprocess.run(["ipcrm", "--shmem-id", words[1]], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(home)


if __name__ == "__main__":
    sys.stdin.read()
    remove(Path(sys.argv[1]))
