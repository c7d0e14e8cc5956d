"""The files that settings name: pipes, and files that break the gateway or will."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from service.config.settings import SettingsError, read_settings

PIPE: Final = "cannot be read: it is a pipe, a socket or a device, and must be a regular file"
FILES: Final = (
    "SIGNING_KEY_FILE",
    "BIND_ACCOUNT_SIGNING_KEY_FILE",
    "LEDGER_KEY_FILE",
    "UPSTREAM_CA_FILE",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "TLS_CLIENT_CA_FILE",
    "CALLERS_FILE",
    "RESULT_CODES_FILE",
)
VERSIONED: Final = ("PUBLIC_KEY_FILES", "DECRYPTION_KEY_FILES")


def test_a_pipe_is_refused_for_every_file_without_waiting(tmp_path: Path, environ: dict[str, str]) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    named = {f"ALIPAYHK_{name}": str(pipe) for name in FILES}
    versioned = {f"ALIPAYHK_{name}": f"1={pipe}" for name in VERSIONED}
    with pytest.raises(SettingsError) as failure:
        read_settings({**environ, **named, **versioned}, pipe)
    assert sorted(failure.value.faults) == sorted(
        [
            f"--config {PIPE}",
            *(f"{name} {PIPE}" for name in FILES),
            *(f"{name} version 1 {PIPE}" for name in VERSIONED),
        ]
    )
