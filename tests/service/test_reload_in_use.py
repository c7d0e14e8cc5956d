"""Keys and the listener's certificate can be replaced while the gateway runs, and no call fails for it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from alipayhk.linkage.v1.linkage_service_pb2_grpc import LinkageServiceStub
from sandbox.apis import APIS
from sandbox.server import running as running_sandbox
from service import gateway
from service.config.reload import Reloader
from service.credentials.server_certificate import ServerCertificate
from service.server.tls import start_faults
from tests.certificates import private_pem, public_pem
from tests.sandbox import callers as sandbox_files
from tests.service.fakes import LogStream, bind_request, sync_request
from tests.service.files import KeyRing, TlsFiles
from tests.service.test_gateway import until

WAIT_S = 10.0
IN_FLIGHT_S = 3.0


@dataclass
class Running:
    """A gateway in this process, and the directory with its configuration."""

    address: str
    directory: Path
    log_lines: LogStream

    def channel(self, ca: Path | None = None) -> Any:
        """Connect; with `ca`, over TLS."""
        # Channels of equal arguments share their connections.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        if ca is None:
            return grpc.aio.insecure_channel(self.address, options=options)
        credentials = grpc.ssl_channel_credentials(ca.read_bytes())
        return grpc.aio.secure_channel(self.address, credentials, options=options)

    async def reload(self, *, version: str = "1", **files: bytes) -> None:
        """Write files and the version of our key, ask for a reload, and wait for its end."""
        for name, data in files.items():
            (self.directory / name).write_bytes(data)
        (self.directory / "gateway.toml").write_text(f'signing_key_version = "{version}"\n')
        self.log_lines.truncate(0)
        self.log_lines.seek(0)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(self.log_lines, "configuration reloaded")


async def call(channel: Any, request: Any, timeout_s: float = 5.0) -> str:
    """Make one call; return OK or another code."""
    stub = LinkageServiceStub(channel)  # type: ignore[no-untyped-call]
    name = type(request).__name__.removesuffix("Request")
    try:
        await getattr(stub, name)(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


@pytest.fixture
async def started(
    environ: dict[str, str],
    ring: KeyRing,
    tls: TlsFiles,
    log_lines: LogStream,
    tmp_path: Path,
    with_tls: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Running]:
    """Run a gateway and a sandbox that knows our keys 1 and 2; stop both at the end."""
    monkeypatch.setattr(sys, "stdin", None)  # if it were a terminal, SIGHUP would stop the gateway
    signing = sandbox_files.write_private(tmp_path / "signing.pem", ring.theirs)
    known = [
        f"{version}={sandbox_files.write_public(tmp_path / f'{version}.pem', key.public_key())}"
        for version, key in (("1", ring.ours), ("2", ring.other))
    ]
    files = sandbox_files.KeyRing(ring.theirs, ring.ours, signing, tmp_path / "1.pem")
    options = files.options(merchant_public_key_files=",".join(known))
    (directory := tmp_path / "configuration").mkdir()
    contents = {
        "ours_1": ring.private,
        "ours_2": ring.other_private,
        "theirs": ring.public,
        "chain": tls.certificate,
        "key": tls.key,
    }
    for name, path in contents.items():
        shutil.copy(path, directory / name)
    (config := directory / "gateway.toml").touch()
    async with running_sandbox(options) as url:
        changes = {
            "BASE_URL": url,
            "CLIENT_ID": sandbox_files.CLIENT_ID,
            **{f"{api.name.name}_PATH": api.path for api in APIS.values()},
            "SIGNING_KEY_FILE": "",
            "SIGNING_KEY_FILES": f"1={directory}/ours_1,2={directory}/ours_2",
            "PUBLIC_KEY_FILES": f"1={directory}/theirs",
            "LISTEN": "127.0.0.1:0",
            "ADMIN_LISTEN": "127.0.0.1:0",
            "DRAIN_DELAY_S": "0",
            "RELOAD_EVERY_S": "0",
            "LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db",
        }
        if with_tls:
            changes |= {"TLS_CERT_FILE": f"{directory}/chain", "TLS_KEY_FILE": f"{directory}/key"}
        texts = environ | {f"ALIPAYHK_{name}": text for name, text in changes.items()}
        reloader = Reloader(texts, config, certificate_faults=start_faults)
        settings = reloader.current.settings
        serving = asyncio.create_task(gateway.run(settings, shared=False, reloader=reloader))
        yield Running((await until(log_lines, "gateway started"))["listen"], directory, log_lines)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, WAIT_S)


@pytest.mark.parametrize("with_tls", [False])
async def test_next_call_is_signed_with_the_new_key(started: Running, ring: KeyRing) -> None:
    unknown = private_pem(rsa.generate_private_key(65537, 2048))
    rows = [("1", unknown, "INTERNAL"), ("2", unknown, "OK"), ("1", private_pem(ring.ours), "OK")]
    async with started.channel() as channel:
        for number, (version, ours_1, code) in enumerate(rows):
            await started.reload(version=version, ours_1=ours_1)
            request_id = f"req-{number}"
            linked = await call(channel, sync_request(request_id=request_id, user_id=f"21600000{number}"))
            bound = await call(channel, bind_request(request_id=request_id))
            assert (linked, bound) == (code, code), number


@pytest.mark.parametrize("with_tls", [False])
@pytest.mark.parametrize("is_new_key", [False, True])
async def test_call_in_flight_is_verified_with_the_keys_of_its_start_or_with_new_ones(
    started: Running, ring: KeyRing, is_new_key: bool
) -> None:
    right = public_pem(ring.theirs.public_key())
    wrong = public_pem(rsa.generate_private_key(65537, 2048).public_key())
    before, after = (wrong, right) if is_new_key else (right, wrong)
    delay = f"2160000000000001+DELAY_{IN_FLIGHT_S * 1000:.0f}"
    if is_new_key:
        await started.reload(theirs=before)
    async with started.channel() as channel:
        in_flight = asyncio.create_task(call(channel, sync_request(user_id=delay)))
        await asyncio.sleep(0.5)
        await started.reload(theirs=after)
        code = await call(channel, sync_request(request_id="req-2", user_id="1"))
        assert code == ("OK" if is_new_key else "INTERNAL")
        assert not in_flight.done()
        assert await in_flight == "OK"


@pytest.mark.parametrize("with_tls", [True])
async def test_next_handshake_shows_the_new_certificate(
    started: Running, tls: TlsFiles, other_tls: TlsFiles
) -> None:
    async with started.channel(tls.ca) as earlier:
        assert await call(earlier, sync_request(request_id="req-1")) == "OK"
        await started.reload(chain=other_tls.certificate.read_bytes(), key=other_tls.key.read_bytes())
        async with started.channel(other_tls.ca) as later, started.channel(tls.ca) as outdated:
            assert await call(later, sync_request(request_id="req-2")) == "OK"
            assert await call(outdated, sync_request(request_id="req-3")) == "UNAVAILABLE"
        assert await call(earlier, sync_request(request_id="req-4")) == "OK", "its connection stays open"


def test_keys_are_not_shown() -> None:
    assert "b'key'" not in repr(ServerCertificate(b"chain", b"key", None))
