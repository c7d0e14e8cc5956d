"""`alipayhk-client` as the tests type it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.linkage.where import Where

CLIENT: Final = Path(sys.executable).parent / "alipayhk-client"


def client(*words: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(
        (CLIENT, *words),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **given,
    )


def binding(where: Where, name: str, *, user_id: str = "2160000000000001", **more: str) -> list[str]:
    """Return the words of a BindAccount."""
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
    return ["bind-account", *where.flags, *(word for n, text in flags.items() for word in (f"--{n}", text))]
