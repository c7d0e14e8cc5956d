"""The version of the gateway, and the commit that it was built from."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

UNKNOWN: Final = "unknown"
FILE: Final = Path(__file__).with_name("COMMIT")
"""`make build` and the Dockerfile write the commit into this file, which the wheel contains."""
GIT_S: Final = 10.0


def gateway_version() -> str:
    """Return the version of the distribution."""
    return version("alipayhk-gateway")


@cache
def commit(file: Path = FILE) -> str:
    """Return the first 12 digits of the commit: of the checkout that this is, else from the file."""
    with suppress(OSError, subprocess.SubprocessError):
        if (root := file.parents[1]).joinpath(".git").exists():
            git = ("git", "-C", root, "rev-parse", "--short=12", "HEAD")
            done = subprocess.run(git, capture_output=True, check=True, text=True, timeout=GIT_S)  # noqa: S603
            return done.stdout.strip()
        return file.read_text("ascii").strip() or UNKNOWN
    return UNKNOWN
