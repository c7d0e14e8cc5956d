"""Calls beyond a limit are refused immediately, with a reason, and are not sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc import StatusCode

from tests.e2e import caller
from tests.e2e.caller import Held, not_sent
from tests.e2e.conftest import Run
from tests.e2e.gateway import Gateway
from tests.e2e.material import Material
from tests.e2e.samples import APIS, BIND, SYNC, Api, fresh_request
from tests.e2e.upstream import Peer, Request, Upstream
from tests.e2e.wallet import Wallet

OVERLOADED = not_sent(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
QUOTA_EXCEEDED = not_sent(StatusCode.RESOURCE_EXHAUSTED, "CALLER_QUOTA_EXCEEDED")


@asynccontextmanager
async def held(
    channel: grpc.aio.Channel, api: Api, upstream: Upstream, wallet: Wallet
) -> AsyncIterator[Held]:
    """Keep one call in progress at AlipayHK during the block."""
    until = asyncio.Event()

    async def script(request: Request, peer: Peer) -> None:
        await until.wait()
        await peer.send(wallet.right(request).wire())

    upstream.reset(script)
    calling = asyncio.create_task(caller.accepted(channel, api, api.request(), timeout_s=30))
    await upstream.wait_for_request()
    try:
        yield Held(calling, until)
    finally:
        until.set()
        await asyncio.wait({calling})


async def test_call_beyond_max_in_flight_is_refused_as_overload(
    run: Run, upstream: Upstream, wallet: Wallet
) -> None:
    async with run({"MAX_IN_FLIGHT": "1"}) as gateway:
        async with held(gateway.channel, SYNC, upstream, wallet) as first:
            for other in APIS:
                await caller.refused(gateway.channel, other, other.request(), OVERLOADED)
            assert len(upstream.requests) == 1
            await first.release()
        for other in APIS:
            await caller.accepted(gateway.channel, other, other.request())


async def test_caller_beyond_its_quota_is_refused_and_others_are_not(
    run: Run, upstream: Upstream, wallet: Wallet, material: Material
) -> None:
    callers = material.directory / "quota.toml"
    callers.write_text(
        '[callers.loyalty]\nsan = ["loyalty.corp"]\nmethods = ["SyncLinkage", "BindAccount"]\n'
        "max_in_flight = 1\n"
        '[callers.billing]\nsan = ["billing.corp"]\nmethods = ["SyncLinkage", "BindAccount"]\n'
    )
    ca = material.callers_ca
    server = ca.issue("quota-server", "127.0.0.1")
    settings = {
        "TLS_CERT_FILE": str(server.chain_file),
        "TLS_KEY_FILE": str(server.key_file),
        "TLS_CLIENT_CA_FILE": str(ca.file),
        "CALLERS_FILE": str(callers),
    }
    loyalty, billing = (_credentials(material, name) for name in ("loyalty.corp", "billing.corp"))
    async with run(settings, credentials=loyalty) as gateway, _channel(gateway, billing) as other:
        async with held(gateway.channel, SYNC, upstream, wallet):
            for api in APIS:
                await caller.refused(gateway.channel, api, api.request(), QUOTA_EXCEEDED)
            assert len(upstream.requests) == 1
            upstream.script = wallet.says()
            await caller.accepted(other, SYNC, fresh_request(SYNC))
        await caller.accepted(gateway.channel, BIND, BIND.request())


def _credentials(material: Material, name: str) -> grpc.ChannelCredentials:
    certificate = material.callers_ca.issue(name, name)
    root = material.callers_ca.file.read_bytes()
    return grpc.ssl_channel_credentials(root, certificate.key, certificate.chain)


def _channel(gateway: Gateway, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(gateway.address, credentials)
