"""The command in its own process: flags, output, faults and exit."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from clients.alipayhk.regular_file import NOT_REGULAR
from clients.alipayhk.wire.crypto import EncryptionProfile
from clients.alipayhk.wire.endpoint import Encryption
from clients.alipayhk.wire.errors import ConnectionLost, Truncated
from clients.alipayhk.wire.protocols.envelope_signed import EnvelopeSigned
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned
from sandbox import cli
from sandbox.options import OptionsError
from service.config import values as parsing
from tests.certificates import Authority, curve_key, private_pem
from tests.sandbox.callers import (
    CLIENT_ID,
    FUNCTION,
    PATHS,
    KeyRing,
    bind_body,
    merchant_of,
    parsed,
    sync_body,
    write_public,
)

ROOT = Path(__file__).resolve().parents[2]
MISSING = "cannot be read: No such file or directory"
PROGRAM = """
import argparse, sys
from clients.alipayhk.wire.crypto import EncryptionProfile
from clients.alipayhk.wire.endpoint import Encryption
from clients.alipayhk.wire.protocols.envelope_signed import EnvelopeSigned
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned
from sandbox import cli
parser = argparse.ArgumentParser()
cli.configure(parser)
sys.exit(cli.run(parser.parse_args()))
"""


@asynccontextmanager
async def started(flags: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items()),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_of(process: asyncio.subprocess.Process) -> str:
    """Return the line that is printed when the sandbox is ready."""
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 20)).decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_prints_its_address_and_stops_cleanly(ring: KeyRing, number: signal.Signals) -> None:
    async with started(ring.flags()) as process:
        line = await line_of(process)
        assert line.startswith("sandbox AlipayHK listening on http://127.0.0.1:")
        url = line.removeprefix("sandbox AlipayHK listening on ").rstrip()
        async with merchant_of(url, ring) as merchant:
            assert (await merchant.call("SyncLinkage", sync_body())).result.status == "S"
            hanging = asyncio.create_task(
                merchant.call("BindAccount", bind_body(userId="1+HANG"), timeout_s=10)
            )
            while await merchant.effects("BindAccount") == 0:
                assert not hanging.done()
            process.send_signal(number)
            out, err = await asyncio.wait_for(process.communicate(), 10)
            with pytest.raises(ConnectionLost):
                await hanging
    assert process.returncode == 0
    assert out == b""
    assert b"Traceback" not in err
    assert b"#1 SyncLinkage req-1: the signature matches; the linkage is bound" in err


async def test_it_serves_tls(ring: KeyRing, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "sandbox")
    issued = authority.issue("server", "127.0.0.1")
    flags = ring.flags(tls_cert_file=str(issued.chain_file), tls_key_file=str(issued.key_file))
    async with started(flags) as process:
        url = (await line_of(process)).removeprefix("sandbox AlipayHK listening on ").rstrip()
        assert url.startswith("https://127.0.0.1:")
        async with merchant_of(url, ring) as merchant:
            caller = replace(merchant, tls=authority.client_context())
            assert (await caller.call("SyncLinkage", sync_body())).result.status == "S"
            assert (await caller.call("BindAccount", bind_body())).result.status == "S"
            for suffix, failure in (
                ("RESET", ConnectionLost),
                ("CLOSE", ConnectionLost),
                ("TRUNCATE", Truncated),
            ):
                with pytest.raises(failure):
                    await caller.call("SyncLinkage", sync_body(suffix, userId=f"1+{suffix}"))


async def test_bad_flags_exit_with_78_and_no_traceback(ring: KeyRing) -> None:
    async with started({"listen": "nowhere"}) as process:
        out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 78
    assert out == b""
    assert err.decode().splitlines() == [
        "the sandbox cannot start: fix these flags",
        "--listen: must be host:port",
        "--private-key-file: is required",
        "--merchant-public-key-files: is required",
        "--client-id: is required",
    ]


async def test_invalid_host_exits_with_78(ring: KeyRing) -> None:
    async with started(ring.flags(listen="a..b:1")) as process:
        out, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, out) == (78, b"")
    assert err.decode() == "the sandbox cannot listen on a..b:1: the host is not a valid name\n"


async def test_port_in_use_exits_with_78(ring: KeyRing) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        async with started(ring.flags(listen=listen)) as process:
            out, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, out) == (78, b"")
    assert err.decode().startswith(f"the sandbox cannot listen on {listen}: ")
    assert "Traceback" not in err.decode()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"listen": "127.0.0.1"}, "--listen: must be host:port"),
        ({"listen": ":80"}, "--listen: must be host:port"),
        ({"listen": "127.0.0.1:65536"}, "--listen: must have a port from 0 to 65535"),
        ({"listen": "127.0.0.1:" + "9" * 5000}, "--listen: must have a port from 0 to 65535"),
        ({"listen": "127.0.0.1:x"}, "--listen: must be host:port"),
        ({"client_id": "é"}, "--client-id: must be printable ASCII"),
        ({"private_key_file": "/nowhere"}, f"--private-key-file: {MISSING}"),
        ({"key_version": "a,b"}, "--key-version: must be 1 to 32 letters, digits, _ . -"),
        ({"key_version": "a" * 33}, "--key-version: must be 1 to 32 letters, digits, _ . -"),
        (
            {"merchant_public_key_files": "/nowhere"},
            "--merchant-public-key-files: must be version=path,version=path, each version once",
        ),
        (
            {"merchant_public_key_files": "1=/nowhere,2=/none"},
            f"--merchant-public-key-files: version 1 {MISSING}; version 2 {MISSING}",
        ),
        (
            {"encryption_key_version": "2"},
            "--encryption-key-version: has no key of this version in --merchant-public-key-files",
        ),
        ({"aes_mode": "GCM"}, "--aes-mode: must be ECB or CBC"),
        ({"aes_bits": "192"}, "--aes-bits: must be 128 or 256"),
        ({"rsa_padding": "NONE"}, "--rsa-padding: must be PKCS1V15 or OAEP_SHA256"),
        ({"encryption_content_type": "a\nb"}, "--encryption-content-type: must be printable ASCII"),
        ({"function": ""}, "--function: is required"),
        ({"bind_account_path": PATHS["SyncLinkage"]}, "--bind-account-path: another API has the same path"),
        *(
            (
                {"sync_linkage_path": path},
                "--sync-linkage-path: must start with / but not /__sandbox/, and have no space or #",
            )
            for path in ("binding", "/a b", "/a#b", "/__sandbox/wallet")
        ),
        ({"tls_cert_file": "c"}, "--tls-cert-file, --tls-key-file: give both or neither"),
        ({"tls_key_file": "k"}, "--tls-cert-file, --tls-key-file: give both or neither"),
        (
            {"tls_cert_file": "/nowhere", "tls_key_file": "/nowhere"},
            "--tls-cert-file, --tls-key-file: cannot be used: No such file or directory",
        ),
        (
            {"tls_cert_file": __file__, "tls_key_file": "/dev/zero"},
            f"--tls-cert-file, --tls-key-file: cannot be used: {NOT_REGULAR}",
        ),
    ],
)
def test_a_bad_flag_is_named(ring: KeyRing, changes: dict[str, str], says: str) -> None:
    with pytest.raises(OptionsError) as raised:
        ring.options(**changes)
    assert str(raised.value) == says


@pytest.mark.parametrize("version", ["2026-07.hk_A", "9" * 32])
def test_key_version_that_the_gateway_accepts_is_accepted(ring: KeyRing, version: str) -> None:
    assert parsing.key_version(version) == version
    options = ring.options(
        key_version=version,
        merchant_public_key_files=f"{version}={ring.merchant_file}",
        encryption_key_version=version,
    )
    keys = options.endpoints["SyncLinkage"].keys
    assert (keys.signing_version, [*keys.verifying]) == (version, [version])


def test_keys_of_the_wrong_kind_are_named(ring: KeyRing, tmp_path: Path) -> None:
    small = write_public(tmp_path / "small.pem", rsa.generate_private_key(65537, 1024).public_key())
    with pytest.raises(OptionsError) as raised:
        ring.options(
            private_key_file=str(ring.merchant_file),
            merchant_public_key_files=f"1={small},2={ring.wallet_file}",
        )
    first, second = str(raised.value).splitlines()
    assert first == "--private-key-file: contains a public key, but a private key is needed"
    small_fault, _, kind_fault = second.partition("; version 2 ")
    assert small_fault.startswith("--merchant-public-key-files: version 1 contains a key of 1024 bits")
    assert kind_fault == "contains a private key, but a public key is needed"


def test_encrypted_tls_key_is_refused_without_a_prompt(ring: KeyRing, tmp_path: Path) -> None:
    issued, locked = Authority(tmp_path, "sandbox").issue("server", "127.0.0.1"), tmp_path / "locked.pem"
    locked.write_bytes(private_pem(curve_key(), b"secret"))
    with pytest.raises(OptionsError, match="cannot be used"):
        ring.options(tls_cert_file=str(issued.chain_file), tls_key_file=str(locked))


def test_defaults_are_the_documented_ones(ring: KeyRing) -> None:
    flags = ring.flags()
    del flags["listen"]
    args = parsed(flags)
    assert args.listen == "127.0.0.1:8089"
    options = ring.options(listen="[::1]:0")
    assert (options.host, options.port, options.tls) == ("::1", 0, None)
    assert options.url(port=7) == "http://[::1]:7"
    assert {api: endpoint.path for api, endpoint in options.endpoints.items()} == PATHS
    sync, bind = options.endpoints["SyncLinkage"], options.endpoints["BindAccount"]
    assert sync.client_id == bind.client_id == CLIENT_ID
    assert bind.protocol == EnvelopeSigned(FUNCTION, "1.0.0")
    assert sync.protocol == HeaderSigned(Encryption(EncryptionProfile("ECB", 256, "PKCS1V15"), "1"))


def test_every_flag_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "sandbox.md").read_text("utf-8")
    for flag, _, _ in cli.FLAGS:
        assert f"`--{flag}`" in page
