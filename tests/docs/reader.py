"""Runs the commands of a page one after another, like a reader who pastes them into a terminal."""

from __future__ import annotations

import re
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.docs.expected import Row, not_run
from tests.docs.pages import Block
from tests.peers.processes import GATEWAY, ROOT, WAIT_MAX_S, environment, run, running
from tests.peers.tools import BIN, check
from tests.ports import free_port

CALLERS_PAGES: Final = tuple(f"docs/clients/{language}.md" for language in ("go", "java", "node"))
"""Pages whose commands need another language's toolchain: `make callers` runs them."""
DEMO_PAGES: Final = (
    "README.md",
    "docs/examples.md",
    "docs/clients/python.md",
    "docs/load.md",
    *CALLERS_PAGES,
)
"""Pages whose commands are for a machine on which `make demo` runs."""
CLIENT: Final = GATEWAY.parent / "alipayhk-client"
PORTS: Final = ("50051", "50052", "8089", "9464", "9465")
"""The ports in the pages. A demo may be using them, so the commands run with free ports instead."""
_WITHOUT_ADDRESS: Final = {
    "bin/alipayhk-gateway sandbox ": "bin/alipayhk-gateway sandbox --listen 127.0.0.1:8089 ",
    ".venv/bin/alipayhk-client ": "ALIPAYHK_CLIENT_TARGET=127.0.0.1:50051 .venv/bin/alipayhk-client ",
}
BLOCK_MAX_S: Final = 600.0
"""The timeout of a block: a build can download its dependencies."""
_PORT: Final = re.compile(rf"\b({'|'.join(PORTS)})\b")


def copy_of_the_repository(to: Path) -> None:
    """Copy the committed files, and link the environment and the tools that make targets install."""
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


class Reader:
    """A terminal in a copy of the repository."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._ports = {port: str(free_port()) for port in PORTS}
        listens = {"LISTEN": self.moved("127.0.0.1:50051"), "ADMIN_LISTEN": self.moved("127.0.0.1:9464")}
        self._environment = environment(listens)

    def start_the_demo(self) -> str:
        """Start the demo as `make demo` does; return its output up to the last line of its start."""
        words = ("tests.docs.demo_elsewhere", *(f"{port}={other}" for port, other in self._ports.items()))
        demo = self._stack.enter_context(running(sys.executable, "-m", *words))
        return demo.wait_for_output("Everything stays up until Ctrl-C.")

    def save(self, name: str, text: str) -> None:
        """Write a file with the content of a block."""
        (self._directory / name).write_text(self.moved(text), "utf-8")

    def paste(self, block: Block, row: Row) -> str:
        """Run a block and check it against its row; return its output."""
        script = self.moved("\n".join(command for command in block.commands if not not_run(command)))
        return self._keep_up(script, row) if row.stays_up else self._to_its_end(block, script, row)

    def _to_its_end(self, block: Block, script: str, row: Row) -> str:
        # The variables that one block exports are set for the next ones, as in one terminal.
        kept = self._directory.parent / "environment"
        keep = f"trap 'env --null > {kept}' EXIT"
        words = ("bash", "-e", "-c", f"{keep}\n{script}")
        ended = run(*words, env=self._environment, cwd=self._directory, timeout_s=BLOCK_MAX_S)
        assert ended.status in (row.status, *row.when_busy), f"{block}: {ended.output}"
        missing = [words for words in row.says if not self._says(ended.output, words)]
        assert missing == [], f"{block}: {ended.output}"
        members = (member.partition("=") for member in kept.read_text("utf-8").split("\0") if member)
        self._environment = {name: value for name, _, value in members}
        return ended.out

    def _keep_up(self, script: str, row: Row) -> str:
        process = self._stack.enter_context(
            running("bash", "-e", "-c", f"exec {script}", env=self._environment, cwd=self._directory)
        )
        give_up = time.monotonic() + WAIT_MAX_S
        while not all(self._says(process.output(), words) for words in row.says):
            assert process.process.poll() is None, process.output()
            assert time.monotonic() < give_up, process.output()
            time.sleep(0.05)
        return process.output()

    def _says(self, output: str, words: str) -> bool:
        return re.search(self.moved(words), output, re.MULTILINE) is not None

    def moved(self, text: str) -> str:
        """Return a text with the ports of this terminal instead of those of the pages."""
        # Without an address, the sandbox and the client use ports of the pages; the gateway has settings.
        for words, reported in _WITHOUT_ADDRESS.items():
            text = text.replace(words, reported)
        return _PORT.sub(lambda found: self._ports[found[0]], text)
