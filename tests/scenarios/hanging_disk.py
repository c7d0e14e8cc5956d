"""The gateway on a disk that hangs: commits wait while the file that HANG_WHILE names exists."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from service.commands.cli import main
from service.ledger.sqlite.tables import Tables

HANG_WHILE = Path(os.environ.pop("HANG_WHILE"))
commit = Tables.commit


def hanging_commit(tables: Tables) -> None:
    while HANG_WHILE.exists():
        time.sleep(0.05)
    commit(tables)


setattr(Tables, "commit", hanging_commit)  # noqa: B010
sys.exit(main())
