"""The commands: what they print, what they write, and what they exit with."""

from __future__ import annotations

import base64
import json
import stat
import sys
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from tests.e2e.gateway import Ended, Gateway, Settings
from tests.e2e.gateway import run as command
from tests.e2e.material import Material, pem
from tests.e2e.operations import NOT_SERVING
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


def no_traceback(ended: Ended) -> None:
    """Check that whatever went wrong was said in words."""
    assert "Traceback" not in ended.err + ended.out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
async def test_help_is_everywhere(words: tuple[str, ...]) -> None:
    ended = await command(*words, "--help")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("usage: alipayhk-gateway")


@pytest.mark.parametrize("arguments", [("no-such-command",), ("serve", "--no-such-flag")])
async def test_bad_usage_is_told(arguments: tuple[str, ...]) -> None:
    ended = await command(*arguments)
    assert ended.status not in (0, 1)
    assert "usage: alipayhk-gateway" in ended.err
    no_traceback(ended)


async def test_module_is_the_same_command() -> None:
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
    no_traceback(again)
    assert contents(directory) == before


def contents(directory: Path) -> dict[Path, bytes]:
    """Return what every file holds."""
    return {file: file.read_bytes() for file in directory.iterdir()}


def check_pair(facts: dict[str, str]) -> None:
    """Check that three files hold one pair, and that the private half is private."""
    private_file = Path(facts["private_key_file"])
    assert stat.S_IMODE(private_file.stat().st_mode) == 0o600
    key = serialization.load_pem_private_key(private_file.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size >= 2048
    der = base64.b64decode(Path(facts["public_key_base64_file"]).read_text("ascii"))
    assert serialization.load_der_public_key(der) == key.public_key()
    public = serialization.load_pem_public_key(Path(facts["public_key_file"]).read_bytes())
    assert public == key.public_key()


async def test_pair_is_not_half_made_where_one_of_its_files_is_there(tmp_path: Path) -> None:
    (tmp_path / "signing.pub.b64").write_text("mine")
    before = contents(tmp_path)
    ended = await command("keys", "generate", tmp_path)
    assert ended.status not in (0, 1)
    assert contents(tmp_path) == before


async def test_generated_keys_are_told_in_words_too(tmp_path: Path) -> None:
    ended = await command("keys", "generate", tmp_path, "--name", "next")
    assert ended.status == 0
    assert str(tmp_path / "next.key.pem") in ended.out
    assert "PRIVATE" not in ended.out


@pytest.mark.parametrize("bits", ["2047", "99999"])
async def test_keys_of_other_sizes_are_not_made(tmp_path: Path, bits: str) -> None:
    ended = await command("keys", "generate", tmp_path, "--bits", bits)
    assert ended.status != 0
    assert contents(tmp_path) == {}
    no_traceback(ended)


async def inspected(file: Path) -> dict[str, str]:
    """Inspect a file that can be."""
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


GARBAGE = {
    "text": b"hello, marked-zq47",
    "pem": b"-----BEGIN PRIVATE KEY-----\nbWFya2VkLTQ3MTE=\n-----END PRIVATE KEY-----\n",
    "base64": base64.b64encode(b"marked-zq47" * 9),
    "binary": bytes(range(256)),
    "elliptic": pem(ec.generate_private_key(ec.SECP256R1())),
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_is_no_key(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(GARBAGE[kind])
    ended = await command("keys", "inspect", file, *(["--json"] if kind == "text" else []))
    assert ended.status == 78
    assert str(file) in ended.err
    assert "zq47" not in ended.err
    no_traceback(ended)


# -- health


async def test_health_exits_with_0_while_serving(gateway: Gateway) -> None:
    ended = await command("health", "--addr", gateway.address)
    assert (ended.status, ended.out) == (0, "status: SERVING\n")
    ended = await command("health", "--service", "liveness", "--json", settings={"LISTEN": gateway.address})
    assert (ended.status, json.loads(ended.out)) == (0, {"status": "SERVING"})


async def test_health_exits_with_4_where_the_answer_is_not_serving() -> None:
    servicer, server = health_aio.HealthServicer(), grpc.aio.server()
    await servicer.set("", NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ended = await command("health", "--addr", f"127.0.0.1:{port}")
    await server.stop(None)
    assert (ended.status, ended.out) == (4, "status: NOT_SERVING\n")


async def test_health_exits_with_2_without_a_connection() -> None:
    ended = await command("health", "--addr", f"127.0.0.1:{free_port()}", "--timeout", "0.5")
    assert ended.status == 2
    no_traceback(ended)


async def test_health_exits_with_3_where_the_service_is_not_known(gateway: Gateway) -> None:
    assert (await command("health", "--addr", gateway.address, "--service", "nobody")).status == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no-such-flag",),
        ("--timeout", "soon"),
        ("--timeout", "inf"),
        ("--addr", ""),
        ("--tls-cert-file", "x"),
    ],
    ids=" ".join,
)
async def test_health_exits_with_1_for_bad_arguments(arguments: tuple[str, ...]) -> None:
    ended = await command("health", *arguments)
    assert ended.status == 1
    no_traceback(ended)


# -- ports


@pytest.mark.parametrize("name", ["LISTEN", "ADMIN_LISTEN", "HEALTH_LISTEN"])
async def test_port_in_use_is_said_clearly(gateway: Gateway, settings: Settings, name: str) -> None:
    more = {"LISTEN": "127.0.0.1:0", "ADMIN_LISTEN": f"127.0.0.1:{free_port()}", name: gateway.address}
    ended = await command("serve", settings={**settings, **more})
    assert ended.status == 69
    assert gateway.address in ended.err
    no_traceback(ended)
