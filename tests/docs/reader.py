"""Simulates a reader who pastes the commands of a page into a terminal, one after another."""

from __future__ import annotations

import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from service.commands.demo.calls import ENCRYPTED, PLAIN
from service.commands.demo.ports import wait_until_free
from tests.docs.expected import Row, not_run
from tests.docs.pages import Block
from tests.peers.processes import GATEWAY, PATIENCE_S, ROOT, environment, run, running
from tests.peers.tools import BIN, check

CALLERS_PAGES: Final = tuple(f"docs/clients/{language}.md" for language in ("go", "java", "node"))
"""Pages with commands that need another language's toolchain: `make callers` runs them."""
DEMO_PAGES: Final = (
    "README.md",
    "docs/examples.md",
    "docs/clients/python.md",
    "docs/load.md",
    *CALLERS_PAGES,
)
"""Pages with commands that need a running `make demo`."""
CLIENT: Final = GATEWAY.parent / "alipayhk-client"


def copy_of_the_repository(to: Path) -> None:
    """Copy the files of a clone, and link the environment and the tools that make targets install."""
    for name in run("git", "ls-files").out.splitlines():
        source, target = ROOT / name, to / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    (programs := to / ".venv" / "bin").mkdir(parents=True)
    for program in (GATEWAY, CLIENT, check("buf")):
        (programs / program.name).symlink_to(program)
    # A symbolic link would start the interpreter without its environment.
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', "utf-8")
    (programs / "python").chmod(0o755)
    (to / ".tools").symlink_to(BIN.parent)


@contextmanager
def _reserved(address: str) -> Iterator[None]:
    """Reserve a port, so that no outgoing connection of a parallel test gets it.

    A bound socket that does not listen reserves the port. SO_REUSEADDR lets another socket listen on it.
    """
    host, _, port = address.partition(":")
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_until_free(address)
        holder.bind((host, int(port)))
        yield


class Reader:
    """A terminal in a copy of the repository."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._environment = environment()
        for address in (PLAIN, ENCRYPTED):
            stack.enter_context(_reserved(address))

    def start_the_demo(self) -> str:
        """Start the demo as `make demo` does; return its output up to the last line of its start."""
        demo = self._stack.enter_context(running(GATEWAY, "demo", cwd=self._directory))
        return demo.wait_until_says("Everything stays up until Ctrl-C.")

    def save(self, name: str, text: str) -> None:
        """Write a file with the content of a block."""
        (self._directory / name).write_text(text, "utf-8")

    def paste(self, block: Block, row: Row) -> str:
        """Run a block and check it against its row; return its output."""
        script = "\n".join(command for command in block.commands if not not_run(command))
        return self._start(script, row) if row.stays_up else self._run(block, script, row)

    def _run(self, block: Block, script: str, row: Row) -> str:
        # The variables that one block exports are set for the next ones, as in one terminal.
        saved = self._directory.parent / "environment"
        save = f"trap 'env --null > {saved}' EXIT"
        done = run("bash", "-e", "-c", f"{save}\n{script}", env=self._environment, cwd=self._directory)
        assert done.status in (row.status, *row.when_busy), f"{block}: {done.said}"
        missing = [pattern for pattern in row.says if not re.search(pattern, done.said, re.MULTILINE)]
        assert missing == [], f"{block}: {done.said}"
        members = (member.partition("=") for member in saved.read_text("utf-8").split("\0") if member)
        self._environment = {name: value for name, _, value in members}
        return done.out

    def _start(self, script: str, row: Row) -> str:
        process = self._stack.enter_context(
            running("bash", "-e", "-c", f"exec {script}", env=self._environment, cwd=self._directory)
        )
        give_up = time.monotonic() + PATIENCE_S
        while not all(re.search(pattern, process.said(), re.MULTILINE) for pattern in row.says):
            assert process.process.poll() is None, process.said()
            assert time.monotonic() < give_up, process.said()
            time.sleep(0.05)
        return process.said()
