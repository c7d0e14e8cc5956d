"""Run `alipayhk-client` in tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.linkage.where import Where

CLIENT: Final = Path(sys.executable).parent / "alipayhk-client"


def client(
    *arguments: str, stdin: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command; return its exit status and output."""
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(
        (CLIENT, *arguments),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **given,
    )


def binding(where: Where, name: str, *, user_id: str = "2160000000000001", **more: str) -> list[str]:
    """Return the arguments of a BindAccount call."""
    flags = {
        "request-id": f"{where.run}-cli-{name}",
        "merchant-account-id": "2160400000002012",
        "type": "TELECOM",
        "sub-type": "MOBILE_SERVICE",
        "account-id": f"{where.run}-cli-{name}",
        "user-id": user_id,
        "timestamp": "2026-03-01T08:00:00Z",
        **more,
    }
    return ["bind-account", *where.flags, *(part for n, text in flags.items() for part in (f"--{n}", text))]
