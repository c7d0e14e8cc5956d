"""A gateway with a ledger and an upstream: calls, and checks of the requests that the upstream received."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from grpc import StatusCode

from tests.e2e import caller
from tests.e2e.caller import Expected, Held, Reported, not_sent
from tests.e2e.gateway import WAIT_MAX_S, Completed, Gateway
from tests.e2e.gateway import run as command
from tests.e2e.operations import Samples, metrics
from tests.e2e.samples import SYNC, Api
from tests.e2e.upstream import Peer, Request, Script, Upstream
from tests.e2e.wallet import Wallet, id_of

IN_DOUBT: Final = Expected(StatusCode.UNKNOWN, "OUTCOME_IN_DOUBT", "unknown", "operator")
REUSED: Final = not_sent(StatusCode.FAILED_PRECONDITION, "REQUEST_ID_REUSED", "new_request_id")
REUSED_OPERATOR: Final = not_sent(StatusCode.FAILED_PRECONDITION, "REQUEST_ID_REUSED", "operator")
LEDGER_UNAVAILABLE: Final = not_sent(StatusCode.UNAVAILABLE, "LEDGER_UNAVAILABLE")
OVERLOADED: Final = not_sent(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
OVERLOADED_MAX_S: Final = 20.0


def ledger_settings(file: Path) -> dict[str, str]:
    """Return the settings for a ledger in a file."""
    return {"LEDGER_URL": f"sqlite:///{file}", "BIND_ACCOUNT_WITHOUT_LEDGER": "false"}


def reused(api: Api, *, had_no_effect: bool = False) -> Expected:
    """Expect that the request id was used before; for BindAccount a new id could bind twice."""
    return REUSED if api is SYNC or had_no_effect else REUSED_OPERATOR


@dataclass(frozen=True)
class System:
    """A gateway, its upstream, and AlipayHK's keys."""

    gateway: Gateway
    upstream: Upstream
    wallet: Wallet

    async def call(self, api: Api, request: Any, *, timeout_s: float | None = caller.TIMEOUT_S) -> Any:
        """Call; return the response or the reported status."""
        return await caller.call(self.gateway.channel, api, request, timeout_s=timeout_s)

    async def ok(self, api: Api, request: Any, *, replayed: bool = False, **how: Any) -> Any:
        """Call; check that the status is OK, and return the response."""
        result = await self.served(api, request, **how)
        assert not isinstance(result, Reported), result
        assert result.replayed is replayed
        assert not result.resolved_by_operator
        assert result.result.status == "S"
        return result

    async def served(self, api: Api, request: Any, **how: Any) -> Any:
        """Call, and again if the gateway is overloaded: a busy machine lets calls wait in gRPC's queue."""
        give_up = time.monotonic() + OVERLOADED_MAX_S
        while True:
            result = await self.call(api, request, **how)
            exhausted = isinstance(result, Reported) and result.code is StatusCode.RESOURCE_EXHAUSTED
            if not exhausted or result.info.reason != "OVERLOADED" or time.monotonic() > give_up:
                return result
            await asyncio.sleep(0.5)

    async def reported(
        self, api: Api, request: Any, expected: Expected, *, replayed: bool = False, **how: Any
    ) -> Reported:
        """Call; check that the status is the expected one, and return it."""
        result = await self.served(api, request, **how)
        assert isinstance(result, Reported), "the call returned OK"
        caller.check(result, expected, request)
        assert (result.metadata.get("replayed") == "true") is replayed
        return result

    async def until_open(self, api: Api, count: int) -> None:
        """Wait until so many calls of an API are in progress in the gateway."""
        rpc = f'grpc_method="{api}"'

        def total(samples: Samples, name: str) -> float:
            return sum(value for key, value in samples.items() if key.startswith(name) and rpc in key)

        async with asyncio.timeout(WAIT_MAX_S):
            while True:
                samples = await metrics(self.gateway)
                ended = total(samples, "grpc_server_handled_total{")
                if total(samples, "grpc_server_started_total{") - ended >= count:
                    return
                await asyncio.sleep(0.05)

    def sent(self, request: Any) -> int:
        """Count the sent requests with this id; check that all have a valid signature and equal content."""
        received = [sent for sent in self.upstream.requests if id_of(sent) == request.request_id]
        assert len({self.wallet.business(sent) for sent in received}) <= 1
        return len(received)

    async def resolve(self, request: Any, outcome: str) -> Completed:
        """Resolve an unknown outcome with the operators' command."""
        words = ("ledger", "resolve", request.request_id, f"--{outcome}", "--reason", "asked AlipayHK")
        return await command(*words, settings=self.gateway.settings)


def in_turn(*scripts: Script) -> Script:
    """Return a script that runs one of these scripts for each request, and the last one for all others."""
    left = list(scripts)

    async def script(request: Request, peer: Peer) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(request, peer)

    return script


@asynccontextmanager
async def held(system: System, api: Api, request: Any, **how: Any) -> AsyncIterator[Held]:
    """Keep a request in progress at AlipayHK during the block; it responds correctly when released."""
    until = asyncio.Event()

    async def script(received: Request, peer: Peer) -> None:
        if id_of(received) == request.request_id:
            await until.wait()
        await peer.send(system.wallet.right(received).wire())

    system.upstream.script = script
    count = len(system.upstream.requests)
    calling = asyncio.create_task(system.call(api, request, **how))
    await system.upstream.wait_for_request(count + 1)
    try:
        yield Held(calling, until)
    finally:
        until.set()
        await asyncio.wait({calling})


async def lose(system: System, api: Api, request: Any) -> None:
    """Send a request and lose its response; nothing waits for it any more, so it is not resent."""
    async with held(system, api, request) as sent:
        sent.calling.cancel()
        await system.gateway.cancel_logged(request.request_id)
        await system.upstream.release()
        await system.gateway.attempt_logged(request.request_id)


def changed(api: Api, request: Any, members: Mapping[str, Any] | None = None) -> Any:
    """Return the same request with other content."""
    other = type(request)()
    other.CopyFrom(request)
    for name, value in (members or {"user_id": "2160000000000777"}).items():
        setattr(other, name, value)
    return other
