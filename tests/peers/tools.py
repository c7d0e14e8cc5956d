"""External tools, installed by `make peers` or pinned in requirements/dev.txt."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.peers.processes import ROOT

BIN: Final = ROOT / ".tools" / "bin"
CHECKS: Final = (Path(sys.executable).parent, ROOT / ".venv" / "bin")
"""Directories with the checks of `make lint`; only .venv has them."""


def peer(name: str) -> Path:
    """Return a tool of .tools/bin."""
    tool = BIN / name
    assert tool.exists(), f"{name} is missing: run `make peers`, which installs it into .tools/bin."
    return tool


def check(name: str) -> Path:
    """Return a tool that requirements/dev.txt pins."""
    tools = [tool for place in CHECKS if (tool := place / name).exists()]
    assert tools, f"{name} is missing: run `make setup`, which installs it with the other checks."
    return tools[0]
