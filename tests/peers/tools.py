"""The tools of other people, as `make peers` and the lock install them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.peers.processes import ROOT

BIN: Final = ROOT / ".tools" / "bin"
CHECKS: Final = (Path(sys.executable).parent, ROOT / ".venv" / "bin")
"""Where the checks of `make lint` are: .venv has them, other environments do without."""


def peer(name: str) -> Path:
    """Return a tool of .tools/bin."""
    tool = BIN / name
    assert tool.exists(), f"{name} is not there: run `make peers`, which installs it into .tools/bin."
    return tool


def check(name: str) -> Path:
    """Return a tool that the lock pins."""
    tools = [tool for place in CHECKS if (tool := place / name).exists()]
    assert tools, f"{name} is not there: run `make setup`, which installs it with the other checks."
    return tools[0]
