"""The pages and their fenced blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.peers.processes import ROOT

PAGES: Final = tuple(
    sorted(
        str(path.relative_to(ROOT))
        for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
        if path.name != "CHANGELOG.md"
    )
)
_FENCE: Final = re.compile(r"^( *)```([a-z]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Return the commands of the block; a command can have several lines."""
        commands, pending = [], ""
        for line in self.text.splitlines():
            pending += line
            if _is_whole(pending):
                commands.append(pending)
                pending = ""
            else:
                pending += "\n"
        assert pending == "", f"{self}: the last command is incomplete"
        return [command for command in commands if command.strip()]


def _is_whole(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return False
    return not command.endswith("\\")


def rows(text: str, head: str) -> list[list[str]]:
    """Return the cells of the tables of a page whose first column has this head."""
    tables = re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert tables
    return [re.split(r" *\| *", line[1:-1].strip()) for table in tables for line in table.splitlines()]


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page in order."""
    text = (ROOT / page).read_text("utf-8")
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[2], found[3])


def all_blocks(kind: str) -> list[Block]:
    """Return every block of a kind, from all pages."""
    return [block for page in PAGES for block in blocks(page) if block.kind == kind]
