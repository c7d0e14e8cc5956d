"""The version of the client, and the commit that it was built from."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("COMMIT")
"""`make build` writes the commit into this file, which the wheel contains."""
GIT_S: Final = 10.0


def version_and_commit() -> str:
    """Return what `--version` prints. The commit is that of the checkout that this is, else of the file."""
    return f"{version('alipayhk-linkage')} (commit {_commit()})"


def _commit() -> str:
    with suppress(OSError, IndexError, subprocess.SubprocessError):
        if (root := FILE.parents[3]).joinpath("clients", "linkage", "pyproject.toml").exists():
            git = ("git", "-C", root, "rev-parse", "--short=12", "HEAD")
            done = subprocess.run(git, capture_output=True, check=True, text=True, timeout=GIT_S)  # noqa: S603
            return done.stdout.strip()
        return FILE.read_text("ascii").strip() or "unknown"
    return "unknown"
