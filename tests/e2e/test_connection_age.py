"""MAX_CONNECTION_AGE_S: channels move to other gateways, at this age or at shutdown; no call is cut."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from tests.e2e import caller
from tests.e2e.caller import DETAILS, Reported
from tests.e2e.conftest import Run, RunAll
from tests.e2e.gateway import WAIT_MAX_S, Gateway, channel_to
from tests.e2e.operations import NOT_SERVING, SERVING, watching
from tests.e2e.samples import BIND, SYNC, Api, fresh_request
from tests.e2e.test_load import held
from tests.e2e.upstream import Peer, Request, Upstream
from tests.e2e.wallet import Wallet, id_of

AGE_S: Final = 1.0
LONGER_S: Final = 1.5
"""Longer than the age of a connection with its jitter of 10 %."""
MOVES: Final = 3


class Balancer:
    """A load balancer that passes each connection to the next gateway in turn."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = itertools.cycle(addresses)
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        host, _, port = next(self._addresses).rpartition(":")
        to_reader, to_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pipe(reader, to_writer), _pipe(to_reader, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while some := await reader.read(65_536):
            writer.write(some)
    writer.close()


@asynccontextmanager
async def balancing(gateways: Sequence[Gateway]) -> AsyncIterator[tuple[Balancer, str]]:
    """Run a load balancer in front of gateways; yield it and its address."""
    balancer = Balancer([gateway.address for gateway in gateways])
    server = await asyncio.start_server(balancer, "127.0.0.1", 0)
    try:
        yield balancer, "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()


async def test_channel_moves_to_another_gateway_at_its_maximum_age_and_no_call_is_cut(
    run_all: RunAll, upstream: Upstream, wallet: Wallet
) -> None:
    slow: set[str] = set()

    async def script(request: Request, peer: Peer) -> None:
        if id_of(request) in slow:
            await asyncio.sleep(LONGER_S)
        await peer.send(wallet.right(request).wire())

    upstream.reset(script)
    ages = {name: {"MAX_CONNECTION_AGE_S": f"{AGE_S:g}"} for name in ("one", "other")}
    async with run_all(ages) as found, balancing(list(found.values())) as (balancer, address):
        give_up = time.monotonic() + WAIT_MAX_S

        async def make_calls(api: Api, *, is_slow: bool) -> None:
            while balancer.connections <= MOVES and time.monotonic() < give_up:
                request = fresh_request(api)
                if is_slow:
                    slow.add(request.request_id)
                await caller.accepted(channel, api, request)
                await asyncio.sleep(0.02)

        async with channel_to(address) as channel:
            await asyncio.gather(
                make_calls(SYNC, is_slow=True),
                make_calls(BIND, is_slow=True),
                make_calls(SYNC, is_slow=False),
            )
    assert balancer.connections > MOVES
    for gateway in found.values():
        calls = [record for record in gateway.records if record["event"] == "call"]
        assert {record["code"] for record in calls} == {"OK"}
        assert slow & {record["request_id"] for record in calls}


async def test_callers_leave_a_gateway_that_shuts_down_while_its_calls_finish(
    run: Run, upstream: Upstream, wallet: Wallet
) -> None:
    async with (
        run({"MAX_CONNECTION_AGE_S": "300", "UPSTREAM_TIMEOUT_S": "7"}) as gateway,
        watching(gateway.channel) as readiness,
        held(gateway.channel, SYNC, upstream, wallet) as first,
    ):
        assert await anext(readiness) == SERVING
        gateway.terminate()
        assert await anext(readiness) == NOT_SERVING
        await asyncio.wait_for(connection_refused(gateway.address), WAIT_MAX_S)
        reported = await caller.call(gateway.channel, BIND, BIND.request(), timeout_s=1)
        assert isinstance(reported, Reported)
        assert DETAILS not in reported.trailers, "the gateway that shuts down answered the call"
        assert len(upstream.requests) == 1
        assert (await first.release()).result.status == "S"
        released = time.monotonic()
        assert await gateway.ended() == 0
        # The stream of Health/Watch does not delay the exit until the end of STOP_GRACE_S.
        assert time.monotonic() - released < 15


async def connection_refused(address: str) -> None:
    """Wait until no server listens at an address."""
    host, _, port = address.rpartition(":")
    # The system resets a connection that the server had not accepted when it closed its port.
    with suppress(ConnectionError):
        while True:
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            await asyncio.sleep(0.02)
