"""Every caller gets the result of its own request, even if AlipayHK sends extra responses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc import StatusCode

from tests.e2e import caller
from tests.e2e.caller import Reported
from tests.e2e.conftest import Rpc, Run
from tests.e2e.gateway import Gateway
from tests.e2e.material import Material
from tests.e2e.samples import SYNC, fresh_request
from tests.e2e.upstream import Peer, Request, Script, Upstream, listening
from tests.e2e.wallet import Wallet, result

CALLS = 12
REJECTED = "rejected by number"
QUARANTINE_S = 0.1


@asynccontextmanager
async def secure_gateway(
    run: Run, material: Material, **settings: str
) -> AsyncIterator[tuple[Gateway, Upstream]]:
    """Run a gateway with its own upstream over TLS."""
    async with listening(material.upstream_ca.server_context()) as upstream:
        trusted = {"UPSTREAM_CA_FILE": str(material.upstream_ca.file)}
        async with run({"BASE_URL": upstream.url, **trusted, **settings}) as gateway:
            yield gateway, upstream


def right(wallet: Wallet, request: Request) -> bytes:
    """Return a signed response: F if the request's external_binding_id is REJECTED, else S."""
    rejects = json.loads(request.body)["externalBindingId"] == REJECTED
    return wallet.right(request, result("F", "USER_NOT_EXIST") if rejects else None).wire()


async def call_each_in_turn(gateway: Gateway, first: int = 0) -> list[str]:
    """Make calls that expect S or F; return the calls that got another result than expected."""
    faults = []
    for number in range(first, first + CALLS):
        rejects = number % 3 == 1
        request = fresh_request(SYNC, external_binding_id=REJECTED if rejects else f"number {number}")
        reported = await caller.call(gateway.channel, SYNC, request, timeout_s=20)
        if (isinstance(reported, Reported) and reported.code is StatusCode.NOT_FOUND) is not rejects:
            faults.append(f"{number}: {reported}")
        await asyncio.sleep(number % 2 * 0.15)
    return faults


def repeating(wallet: Wallet, after_s: float) -> Script:
    """Return a script that sends each third response a second time after a delay in seconds."""
    answered = 0

    async def script(request: Request, peer: Peer) -> None:
        nonlocal answered
        answered += 1
        response = right(wallet, request)
        await peer.send(response)
        if answered % 3 == 1:
            await asyncio.sleep(after_s)
            await peer.send(response)

    return script


async def test_duplicate_response_shifts_no_result(sync: Rpc) -> None:
    sync.upstream.script = repeating(sync.wallet, after_s=0.03)
    assert await call_each_in_turn(sync.gateway) == []


async def test_old_response_repeated_for_the_next_request_is_not_accepted(sync: Rpc) -> None:
    last: dict[asyncio.StreamWriter, bytes] = {}
    repeated = 0

    async def script(request: Request, peer: Peer) -> None:
        nonlocal repeated
        if peer.writer in last:
            repeated += 1
            await peer.send(last[peer.writer])
            await asyncio.sleep(0.05)
        last[peer.writer] = right(sync.wallet, request)
        await peer.send(last[peer.writer])

    logged = len(_repeated(sync.gateway))
    sync.upstream.script = script
    assert await call_each_in_turn(sync.gateway) == []
    assert len(sync.upstream.requests) == CALLS + repeated
    assert len(_repeated(sync.gateway)) - logged == repeated > 0


def _repeated(gateway: Gateway) -> list[str]:
    return [line for line in gateway.out + gateway.err if '"Repeated"' in line]


async def test_signed_success_pushed_onto_an_idle_connection_matches_no_request(sync: Rpc) -> None:
    pushed = asyncio.Event()

    async def script(request: Request, peer: Peer) -> None:
        await peer.send(right(sync.wallet, request))
        if len(sync.upstream.requests) == 1:
            await asyncio.sleep(QUARANTINE_S + 0.1)
            await peer.send(sync.wallet.right(request).wire())
            await peer.wait_until_closed()
            pushed.set()

    sync.upstream.script = script
    await caller.accepted(sync.gateway.channel, SYNC, fresh_request(SYNC))
    async with asyncio.timeout(10):
        await pushed.wait()
    rejected = fresh_request(SYNC, external_binding_id=REJECTED)
    reported = await caller.call(sync.gateway.channel, SYNC, rejected)
    assert isinstance(reported, Reported)
    assert reported.code is StatusCode.NOT_FOUND
    assert len(sync.upstream.requests) == 2


async def test_fresh_connections_are_a_setting(run: Run, material: Material, wallet: Wallet) -> None:
    async with secure_gateway(run, material, UPSTREAM_CONNECTIONS="fresh") as (gateway, upstream):
        upstream.script = wallet.says()
        for _ in range(3):
            await caller.accepted(gateway.channel, SYNC, fresh_request(SYNC))
            await asyncio.sleep(QUARANTINE_S + 0.05)
        assert upstream.connections == 3
