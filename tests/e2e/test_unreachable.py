"""If the gateway cannot connect to AlipayHK or trust its certificate, it sends nothing and reports that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from grpc import StatusCode

from tests.e2e import caller
from tests.e2e.caller import Reported, not_sent
from tests.e2e.conftest import Rpc, Run, RunAll
from tests.e2e.gateway import Gateway
from tests.e2e.material import Material
from tests.e2e.samples import APIS, BIND, SYNC, Api
from tests.e2e.upstream import Upstream, listening
from tests.e2e.wallet import Wallet
from tests.ports import free_port

TRYING = {"DEFAULT_DEADLINE_S": "1.5"}
"""How long a call tries to connect. If the caller set this deadline, the status could arrive too late."""
UNREACHABLE = not_sent(StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
TLS_INVALID = not_sent(StatusCode.UNAVAILABLE, "UPSTREAM_TLS_INVALID", "operator")


@dataclass
class SilentListener:
    """A listener that reads everything and never responds."""

    port: int = 0
    data: list[bytes] = field(default_factory=list)
    received: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read until the connection is closed."""
        try:
            while data := await reader.read(4096):
                self.data.append(data)
                self.received.set()
        except OSError:
            pass
        finally:
            self.ended.set()
            writer.close()


@asynccontextmanager
async def silent_listener() -> AsyncIterator[SilentListener]:
    """Run such a listener."""
    listener = SilentListener()
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()


async def unreachable(gateway: Gateway, api: Api) -> Reported:
    """Call without a reachable upstream; the gateway retries until its default deadline."""
    return await caller.refused(gateway.channel, api, api.request(), UNREACHABLE, timeout_s=None)


async def test_unknown_or_refusing_host_is_unreachable(run_all: RunAll, upstream: Upstream) -> None:
    urls = {
        "no such name": "https://alipay.invalid",
        "refused": f"https://127.0.0.1:{free_port()}",
        "refused in plaintext": f"http://127.0.0.1:{free_port()}",
    }
    async with run_all({why: TRYING | {"BASE_URL": url} for why, url in urls.items()}) as gateways:
        calls = (unreachable(gateway, api) for gateway in gateways.values() for api in APIS)
        for reported in await asyncio.gather(*calls):
            assert int(reported.metadata["attempts"]) >= 1
    assert upstream.requests == []


async def test_call_cancelled_while_connecting_closes_its_connection(run: Run) -> None:
    async with (
        silent_listener() as listener,
        run({"BASE_URL": f"https://127.0.0.1:{listener.port}", "UPSTREAM_TIMEOUT_S": "30"}) as gateway,
    ):
        calling = asyncio.create_task(caller.call(gateway.channel, SYNC, SYNC.request(), timeout_s=30))
        await listener.received.wait()
        calling.cancel()
        async with asyncio.timeout(15):
            await listener.ended.wait()
        await gateway.logged(lambda record: record["event"] == "call" and record["code"] == "CANCELLED")


async def test_connecting_is_retried_while_nothing_was_sent(run: Run, wallet: Wallet) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen yet
        async with run({"BASE_URL": f"http://127.0.0.1:{bound.getsockname()[1]}"}) as gateway:
            request = BIND.request()
            calling = asyncio.create_task(caller.accepted(gateway.channel, BIND, request))
            assert (await gateway.attempt_logged(request.request_id))["end"] == "Unreachable"
            async with listening(bound=bound) as late:
                late.script = wallet.says()
                await calling
            Rpc(BIND, gateway, late, wallet, idempotent=False).check_sent(request)


TLS_CAUSES = {
    "expired": "has expired (OpenSSL: certificate has expired)",
    "not yet valid": "is not yet valid (OpenSSL: certificate is not yet valid)",
    "wrong host": "(OpenSSL: IP address mismatch)",
}


async def test_invalid_certificate_is_refused_and_the_log_names_the_cause(
    run_all: RunAll, material: Material, wallet: Wallet
) -> None:
    authority = material.upstream_ca
    ca = {"UPSTREAM_CA_FILE": str(authority.file)}
    contexts = {
        "expired": authority.server_context(days=(-30.0, -1.0)),
        "not yet valid": authority.server_context(days=(1.0, 30.0)),
        "wrong host": authority.server_context(host="alipay.example"),
    }
    async with AsyncExitStack() as stack:
        secure: dict[str, Upstream] = {}
        for kind, context in contexts.items():
            secure[kind] = await stack.enter_async_context(listening(context))
            secure[kind].script = wallet.says()
        more = {kind: {"BASE_URL": upstream.url, **ca} for kind, upstream in secure.items()}
        for kind, gateway in (await stack.enter_async_context(run_all(more))).items():
            for api in APIS:
                request = api.request()
                await caller.refused(gateway.channel, api, request, TLS_INVALID)
                attempt = await gateway.attempt_logged(request.request_id)
                assert TLS_CAUSES[kind] in attempt["cause"]
                assert (attempt["level"], attempt["address"]) == ("warning", secure[kind].url[8:])
                assert (await gateway.call_logged(request.request_id))["cause"] == attempt["cause"]
            assert secure[kind].requests == []


async def test_private_ca_is_trusted_only_if_configured(
    run_all: RunAll, material: Material, wallet: Wallet
) -> None:
    ca = {"UPSTREAM_CA_FILE": str(material.upstream_ca.file)}
    async with listening(material.upstream_ca.server_context()) as secure:
        secure.script = wallet.says()
        url = {"BASE_URL": secure.url}
        async with run_all({"system's": url, "named": url | ca}) as gateways:
            for api in APIS:
                request = api.request()
                await caller.refused(gateways["system's"].channel, api, request, TLS_INVALID)
                attempt = await gateways["system's"].attempt_logged(request.request_id)
                assert attempt["cause"].startswith(
                    "the server's certificate is of an unknown CA (OpenSSL: "
                )
            assert secure.requests == []
            for api in APIS:
                await caller.accepted(gateways["named"].channel, api, api.request())
        assert len(secure.requests) == 2
