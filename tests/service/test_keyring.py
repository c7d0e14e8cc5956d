"""Keys and the listener's certificate can be replaced while the gateway runs, and no call fails for it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from alipayhk.linkage.v1.linkage_service_pb2_grpc import LinkageServiceStub
from clients.alipayhk.wire.keys import Keys
from sandbox.apis import APIS
from sandbox.server import running as running_sandbox
from service import gateway
from service.config.settings import read_settings
from service.credentials.keyring import Credentials, Keyring, ServerCertificate
from tests.sandbox import callers as sandbox_files
from tests.service.fakes import LogStream, bind_request, sync_request
from tests.service.files import KeyRing, TlsFiles
from tests.service.test_gateway import until

WAIT_S = 10.0
IN_FLIGHT_S = 3.0


@dataclass
class Running:
    """A gateway in this process, and the holder of its keys."""

    address: str
    keyring: Keyring

    def channel(self, ca: Path | None = None) -> Any:
        """Connect; with `ca`, over TLS."""
        # Channels of equal arguments share their connections.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        if ca is None:
            return grpc.aio.insecure_channel(self.address, options=options)
        credentials = grpc.ssl_channel_credentials(ca.read_bytes())
        return grpc.aio.secure_channel(self.address, credentials, options=options)

    def replace_keys(self, **changes: Any) -> None:
        """Use keys with these changes for every API."""
        current = self.keyring.current
        changed = {api: replace(keys, **changes) for api, keys in current.keys.items()}
        self.keyring.replace(replace(current, keys=changed))


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
) -> AsyncIterator[Running]:
    """Run a gateway and a sandbox that knows our keys 1 and 2; stop both at the end."""
    signing = sandbox_files.write_private(tmp_path / "theirs.pem", ring.theirs)
    known = [
        f"{version}={sandbox_files.write_public(tmp_path / f'{version}.pem', key.public_key())}"
        for version, key in (("1", ring.ours), ("2", ring.other))
    ]
    files = sandbox_files.KeyRing(ring.theirs, ring.ours, signing, tmp_path / "1.pem")
    options = files.options(merchant_public_key_files=",".join(known))
    async with running_sandbox(options) as url:
        changes = {
            "BASE_URL": url,
            "CLIENT_ID": sandbox_files.CLIENT_ID,
            **{f"{api.name.name}_PATH": api.path for api in APIS.values()},
            "LISTEN": "127.0.0.1:0",
            "ADMIN_LISTEN": "127.0.0.1:0",
            "DRAIN_DELAY_S": "0",
            "LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db",
        }
        if with_tls:
            changes |= {"TLS_CERT_FILE": str(tls.certificate), "TLS_KEY_FILE": str(tls.key)}
        settings = read_settings(
            {**environ, **{f"ALIPAYHK_{name}": text for name, text in changes.items()}}
        )
        keyring = Keyring(gateway.credentials_of(settings))
        serving = asyncio.create_task(gateway.run(settings, shared=False, keyring=keyring))
        yield Running((await until(log_lines, "gateway started"))["listen"], keyring)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, WAIT_S)


@pytest.mark.parametrize("with_tls", [False])
async def test_next_call_is_signed_with_the_new_key(started: Running, ring: KeyRing) -> None:
    unknown = rsa.generate_private_key(65537, 2048)
    rows = [(ring.ours, "1", "OK"), (unknown, "1", "INTERNAL"), (ring.other, "2", "OK")]
    async with started.channel() as channel:
        for number, (key, version, code) in enumerate(rows):
            started.replace_keys(signing=key, signing_version=version)
            request_id = f"req-{number}"
            linked = await call(channel, sync_request(request_id=request_id, user_id=f"21600000{number}"))
            bound = await call(channel, bind_request(request_id=request_id))
            assert (linked, bound) == (code, code), number


@pytest.mark.parametrize("with_tls", [False])
async def test_call_in_flight_is_verified_with_the_keys_it_was_signed_with(started: Running) -> None:
    delay = f"2160000000000001+DELAY_{IN_FLIGHT_S * 1000:.0f}"
    async with started.channel() as channel:
        in_flight = asyncio.create_task(call(channel, sync_request(user_id=delay)))
        await asyncio.sleep(0.5)
        unknown = rsa.generate_private_key(65537, 2048)
        started.replace_keys(verifying={"1": unknown.public_key()})
        assert await call(channel, sync_request(request_id="req-2", user_id="1")) == "INTERNAL"
        assert not in_flight.done()
        assert await in_flight == "OK"


@pytest.mark.parametrize("with_tls", [True])
async def test_next_handshake_shows_the_new_certificate(
    started: Running, tls: TlsFiles, other_tls: TlsFiles
) -> None:
    async with started.channel(tls.ca) as earlier:
        assert await call(earlier, sync_request(request_id="req-1")) == "OK"
        new = ServerCertificate.read(other_tls.certificate, other_tls.key, None)
        started.keyring.replace(replace(started.keyring.current, certificate=new))
        async with started.channel(other_tls.ca) as later, started.channel(tls.ca) as outdated:
            assert await call(later, sync_request(request_id="req-2")) == "OK"
            assert await call(outdated, sync_request(request_id="req-3")) == "UNAVAILABLE"
        assert await call(earlier, sync_request(request_id="req-4")) == "OK", "its connection stays open"


CERTIFICATE = ServerCertificate(b"chain", b"key", None)


def test_change_that_needs_a_restart_is_refused(keys: Keys) -> None:
    now = Credentials({"SyncLinkage": keys}, CERTIFICATE)
    keyring = Keyring(now)
    for impossible in (
        replace(now, keys={}),
        replace(now, keys={"BindAccount": keys}),
        replace(now, certificate=None),
        replace(now, certificate=replace(CERTIFICATE, client_ca=b"ca")),
    ):
        with pytest.raises(ValueError, match=r"same APIs|without a restart"):
            keyring.replace(impossible)
        assert keyring.current is now


def test_keys_are_not_shown(keys: Keys) -> None:
    assert "b'key'" not in repr(Credentials({"SyncLinkage": keys}, CERTIFICATE))
