"""Someone who reads a page and pastes its commands into a terminal, one after another."""

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
"""Pages whose commands take another language's toolchain: `make callers` runs them."""
DEMO_PAGES: Final = (
    "README.md",
    "docs/examples.md",
    "docs/clients/python.md",
    "docs/load.md",
    *CALLERS_PAGES,
)
"""Pages whose commands are for a machine on which `make demo` runs."""
CLIENT: Final = GATEWAY.parent / "alipayhk-client"


def copy_of_the_repository(to: Path) -> None:
    """Copy what a clone would hold, with the environment and the tools that make targets install."""
    for name in run("git", "ls-files").out.splitlines():
        source, target = ROOT / name, to / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    (programs := to / ".venv" / "bin").mkdir(parents=True)
    for program in (GATEWAY, CLIENT, check("buf")):
        (programs / program.name).symlink_to(program)
    # A link would be an interpreter without its environment.
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', "utf-8")
    (programs / "python").chmod(0o755)
    (to / ".tools").symlink_to(BIN.parent)


@contextmanager
def _kept_from_others(address: str) -> Iterator[None]:
    """Keep a connection of a test that runs beside this one from being given this port.

    A socket that is bound and does not listen does that, and lets another one listen there (SO_REUSEADDR).
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
            stack.enter_context(_kept_from_others(address))

    def start_the_demo(self) -> str:
        """Do what `make demo` does; return what it says until it stays up."""
        demo = self._stack.enter_context(running(GATEWAY, "demo", cwd=self._directory))
        return demo.wait_until_says("Everything stays up until Ctrl-C.")

    def save(self, name: str, text: str) -> None:
        """Write a file as the page has it."""
        (self._directory / name).write_text(text, "utf-8")

    def paste(self, block: Block, row: Row) -> str:
        """Run a block, which must do as its row says; return what it printed."""
        script = "\n".join(command for command in block.commands if not not_run(command))
        return self._keep_up(script, row) if row.stays_up else self._to_its_end(block, script, row)

    def _to_its_end(self, block: Block, script: str, row: Row) -> str:
        # What one block exports, the next ones have: it is one terminal.
        kept = self._directory.parent / "environment"
        keep = f"trap 'env --null > {kept}' EXIT"
        ended = run("bash", "-e", "-c", f"{keep}\n{script}", env=self._environment, cwd=self._directory)
        assert ended.status in (row.status, *row.when_busy), f"{block}: {ended.said}"
        missing = [words for words in row.says if not re.search(words, ended.said, re.MULTILINE)]
        assert missing == [], f"{block}: {ended.said}"
        members = (member.partition("=") for member in kept.read_text("utf-8").split("\0") if member)
        self._environment = {name: value for name, _, value in members}
        return ended.out

    def _keep_up(self, script: str, row: Row) -> str:
        process = self._stack.enter_context(
            running("bash", "-e", "-c", f"exec {script}", env=self._environment, cwd=self._directory)
        )
        give_up = time.monotonic() + PATIENCE_S
        while not all(re.search(words, process.said(), re.MULTILINE) for words in row.says):
            assert process.process.poll() is None, process.said()
            assert time.monotonic() < give_up, process.said()
            time.sleep(0.05)
        return process.said()
