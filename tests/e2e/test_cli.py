"""The console script runs the commands that `tests/service/test_commands.py` tests in more detail."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from tests.e2e.gateway import run as command


async def test_module_runs_the_same_command() -> None:
    module = await command("--version", program=(sys.executable, "-m", "service"))
    assert module.status == 0
    assert module.out == (await command("--version")).out


async def test_generated_keys_are_private_and_are_never_overwritten(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "keys"
    ended = await command("keys", "generate", directory, "--json")
    assert ended.status == 0, ended.err
    facts = {name: Path(text) for name, text in json.loads(ended.out).items()}
    assert stat.S_IMODE(facts["private_key_file"].stat().st_mode) == 0o600
    key = serialization.load_pem_private_key(facts["private_key_file"].read_bytes(), None)
    public = serialization.load_pem_public_key(facts["public_key_file"].read_bytes())
    assert public == key.public_key()
    before = {file: file.read_bytes() for file in directory.iterdir()}
    again = await command("keys", "generate", directory)
    assert again.status == 73
    assert "Traceback" not in again.err + again.out
    assert {file: file.read_bytes() for file in directory.iterdir()} == before
