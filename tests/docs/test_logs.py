"""The page about the log lists every member that the code can write."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from service.telemetry.logs import ALLOWED
from tests.peers.processes import ROOT

PAGE = (ROOT / "docs/logs.md").read_text("utf-8")
SOURCES = {
    "call": ("service/server/access_log.py", "service/server/error_translation.py"),
    "attempt": ("service/delivery/attempt_log.py",),
}
"""The modules that write the lines of an event, and of no other event."""


def rows() -> Iterator[tuple[list[str], str]]:
    """Yield the names in the first cell of each row, and the second cell."""
    for line in PAGE.splitlines():
        if line.startswith("| `"):
            _, names, of, *_ = line.split("|")
            yield re.findall(r"`(\w+)`", names), of


def test_page_lists_every_member() -> None:
    listed = {name for names, _ in rows() for name in names} | {"time", "level", "event"}
    assert listed == ALLOWED


@pytest.mark.parametrize("event", SOURCES)
def test_page_says_which_members_a_line_can_have(event: str) -> None:
    trees = [ast.parse((ROOT / source).read_text("utf-8")) for source in SOURCES[event]]
    texts = {
        node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)
    } & ALLOWED
    assert {name for names, of in rows() if f"`{event}`" in of for name in names} == texts
