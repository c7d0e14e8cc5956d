"""The commands: their output, their files and their exit statuses."""

from __future__ import annotations

import base64
import json
import stat
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.e2e.gateway import Completed, Gateway, Settings
from tests.e2e.gateway import run as command
from tests.e2e.material import Material
from tests.ports import free_port

COMMANDS = (
    (),
    ("serve",),
    ("sandbox",),
    ("demo",),
    ("keys", "generate"),
    ("keys", "inspect"),
    ("config", "check"),
    ("health",),
)


def check_no_traceback(ended: Completed) -> None:
    """Check that the command reports errors without a traceback."""
    assert "Traceback" not in ended.err + ended.out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
async def test_every_command_has_help(words: tuple[str, ...]) -> None:
    ended = await command(*words, "--help")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("usage: alipayhk-gateway")


async def test_module_runs_the_same_command() -> None:
    module = await command("--version", program=(sys.executable, "-m", "service"))
    assert module.status == 0
    assert module.out == (await command("--version")).out


# -- keys


async def test_generated_keys_are_private_and_are_never_overwritten(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "keys"
    ended = await command("keys", "generate", directory, "--json")
    assert ended.status == 0, ended.err
    check_pair(json.loads(ended.out))
    before = contents(directory)
    again = await command("keys", "generate", directory)
    assert again.status not in (0, 1)
    check_no_traceback(again)
    assert contents(directory) == before


def contents(directory: Path) -> dict[Path, bytes]:
    """Return the content of every file."""
    return {file: file.read_bytes() for file in directory.iterdir()}


def check_pair(facts: dict[str, str]) -> None:
    """Check that the three files contain the same key, and that only the owner can read the private one."""
    private_file = Path(facts["private_key_file"])
    assert stat.S_IMODE(private_file.stat().st_mode) == 0o600
    key = serialization.load_pem_private_key(private_file.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size >= 2048
    der = base64.b64decode(Path(facts["public_key_base64_file"]).read_text("ascii"))
    assert serialization.load_der_public_key(der) == key.public_key()
    public = serialization.load_pem_public_key(Path(facts["public_key_file"]).read_bytes())
    assert public == key.public_key()


async def inspected(file: Path) -> dict[str, str]:
    """Run `keys inspect` on a valid file; return its result."""
    ended = await command("keys", "inspect", file, "--json")
    assert ended.status == 0, ended.err
    facts: dict[str, str] = json.loads(ended.out)
    return facts


async def test_inspected_key_has_one_fingerprint_in_every_form(material: Material, tmp_path: Path) -> None:
    public = material.ours.key.public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    bare = tmp_path / "bare.b64"
    bare.write_bytes(base64.encodebytes(der))
    facts = [
        await inspected(file) for file in (material.ours.private_file, material.ours.public_file, bare)
    ]
    assert [fact["kind"] for fact in facts] == ["private key", "public key", "public key"]
    assert len({fact["sha256"] for fact in facts}) == 1
    assert {fact["bits"] for fact in facts} == {"2048"}
    ended = await command("keys", "inspect", material.ours.private_file)
    assert ended.status == 0
    assert facts[0]["sha256"] in ended.out
    assert "BEGIN" not in ended.out


# -- ports


@pytest.mark.parametrize("name", ["LISTEN", "ADMIN_LISTEN"])
async def test_port_in_use_is_named(gateway: Gateway, settings: Settings, name: str) -> None:
    more = {"LISTEN": "127.0.0.1:0", "ADMIN_LISTEN": f"127.0.0.1:{free_port()}", name: gateway.address}
    ended = await command("serve", settings={**settings, **more})
    assert ended.status == 69
    assert gateway.address in ended.err
    check_no_traceback(ended)
