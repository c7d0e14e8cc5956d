"""The gateway takes the database's password from a file, as deploy/kubernetes and Compose need it."""

from __future__ import annotations

import base64
import re
import secrets
from pathlib import Path

import pytest

from tests.peers.processes import GATEWAY, environment, run
from tests.postgres.server import Postgres


@pytest.mark.parametrize(("mode", "status"), [(0o400, 0), (0o440, 78)])
def test_password_file_is_read_unless_a_group_can_read_it(
    postgres: Postgres, postgres_url: str, tmp_path: Path, mode: int, status: int
) -> None:
    (key := tmp_path / "ledger.key").write_bytes(base64.b64encode(secrets.token_bytes(32)))
    key.chmod(0o600)
    (passwords := tmp_path / "pgpass").write_text(f"*:*:*:gateway:{postgres.password}\n", "utf-8")
    passwords.chmod(mode)
    settings = {
        "LEDGER_URL": re.sub("(?<=gateway):[^@]+", "", postgres_url),
        "LEDGER_KEY_FILE": str(key),
    }
    environ = {**environment(settings), "PGPASSFILE": str(passwords)}
    done = run(GATEWAY, "ledger", "init", env=environ)
    assert done.status == status, done.output
