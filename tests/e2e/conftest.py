"""One upstream and one gateway, shared by all tests that do not affect each other, in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

import pytest
import pytest_asyncio
from google.protobuf.message import Message

from tests.e2e import caller
from tests.e2e.caller import Expected, Reported
from tests.e2e.gateway import WAIT_MAX_S, Gateway, Settings, running, running_all
from tests.e2e.material import Material
from tests.e2e.operations import metrics
from tests.e2e.samples import BIND, CLIENT_ID, PATHS, SYNC, Api, new_id
from tests.e2e.upstream import Request, Script, Upstream, listening
from tests.e2e.wallet import Wallet, id_of

RESENDING_S: Final = 0.5
"""The time for a call that the gateway resends: enough for a few attempts.

It is the default deadline of the shared gateways. If the caller set it, the status would often arrive too
late: the gateway sends it only 50 ms before the caller's deadline.
"""
TRIES_MAX: Final = 5
_TOO_SLOW: Final = {"UPSTREAM_TIMEOUT", "DEADLINE_TOO_SHORT"}
"""The reasons of a resent call whose last attempt, or first one, had too little time."""
Run = Callable[..., AbstractAsyncContextManager[Gateway]]
RunAll = Callable[[Mapping[str, Settings]], AbstractAsyncContextManager[dict[str, Gateway]]]


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Return keys and certificates."""
    return Material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="session")
def wallet(material: Material) -> Wallet:
    """Return AlipayHK's side of both protocols."""
    return Wallet(material.theirs.key, material.ours.key.public_key())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def listener() -> AsyncIterator[Upstream]:
    """Return the upstream of the whole session."""
    async with listening() as upstream:
        yield upstream


@pytest_asyncio.fixture(loop_scope="session")
async def upstream(listener: Upstream, wallet: Wallet) -> AsyncIterator[Upstream]:
    """Return the upstream for one test: it has received nothing and responds correctly to every request."""
    listener.reset(wallet.says())
    yield listener
    await listener.release()
    assert listener.faults == []


@pytest.fixture(scope="session")
def settings(material: Material, listener: Upstream) -> Settings:
    """Return the settings that every gateway needs."""
    return {
        "BASE_URL": listener.url,
        "CLIENT_ID": CLIENT_ID,
        "SIGNING_KEY_FILE": str(material.ours.private_file),
        "PUBLIC_KEY_FILES": f"1={material.theirs.public_file}",
        "SYNC_LINKAGE_PATH": PATHS[SYNC.name],
        "BIND_ACCOUNT_PATH": PATHS[BIND.name],
        "LEDGER_URL": "off",
        "BIND_ACCOUNT_WITHOUT_LEDGER": "true",
        "DRAIN_DELAY_S": "0",
    }


@pytest.fixture(scope="session")
def run(settings: Settings) -> Run:
    """Return a function that runs a gateway with extra settings until its block ends."""

    def running_with(more: Settings | None = None, **how: Any) -> AbstractAsyncContextManager[Gateway]:
        return running({**settings, **(more or {})}, **how)

    return running_with


@pytest.fixture(scope="session")
def run_all(settings: Settings) -> RunAll:
    """Return a function that runs several gateways, each with extra settings."""

    def running_with(more: Mapping[str, Settings]) -> AbstractAsyncContextManager[dict[str, Gateway]]:
        return running_all({name: {**settings, **added} for name, added in more.items()})

    return running_with


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(run: Run) -> AsyncIterator[Gateway]:
    """Return the gateway that most tests share."""
    async with run({"DEFAULT_DEADLINE_S": str(RESENDING_S)}) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def idempotent_gateway(run: Run) -> AsyncIterator[Gateway]:
    """Return a gateway with BIND_ACCOUNT_IDEMPOTENT."""
    settings = {"BIND_ACCOUNT_IDEMPOTENT": "true", "DEFAULT_DEADLINE_S": str(RESENDING_S)}
    async with run(settings) as gateway:
        yield gateway


@dataclass(frozen=True)
class Rpc:
    """One RPC of one gateway, with the upstream that receives its requests."""

    api: Api
    gateway: Gateway
    upstream: Upstream
    wallet: Wallet
    idempotent: bool
    """Whether the gateway may resend the same request."""

    async def accepted(
        self, script: Script | None = None, request: Message | None = None, **how: Any
    ) -> Any:
        """Call; check that the status is OK and that the gateway sent exactly one correct request."""
        self.upstream.script = script or self.upstream.script
        request = self.api.request() if request is None else request
        response = await caller.accepted(self.gateway.channel, self.api, request, **how)
        self.check_sent(request)
        return response

    async def refused(
        self,
        script: Script,
        expected: Expected,
        request: Message | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Reported:
        """Call; check that the status is the expected one, and which requests were sent; return the status.

        The gateway sends no request if the outcome is `not_sent`, the same request once for each reported
        attempt if it resends, and else exactly one. If a busy machine was too slow, the call is repeated
        with a new request id.
        """
        self.upstream.script = script
        request = self.api.request() if request is None else request
        if timeout_s is None and not expected.is_resent:
            timeout_s = caller.TIMEOUT_S
        reported = await self._reported(request, timeout_s)
        too_slow = _TOO_SLOW - {expected.reason} if expected.is_resent else set()
        for _ in range(1, TRIES_MAX):
            if not reported.is_late and reported.info.reason not in too_slow:
                break
            await self._forget(request)
            reported = await self._reported(request, timeout_s or 3 * RESENDING_S)
        attempts = int(reported.metadata.get("attempts", "0"))
        caller.check(reported, expected, request)
        if expected.outcome == "not_sent":
            assert self.upstream.requests == []
            return reported
        if expected.is_resent:
            await self.upstream.wait_for_request(attempts)
        else:
            assert attempts == 1
        self.check_sent(request, attempts)
        return reported

    async def _forget(self, request: Any) -> None:
        """Wait until a call is over and its attempts too; forget them, and give its request a new id."""
        await self.gateway.call_logged(request.request_id)
        await self.upstream.release()
        in_progress = 1.0
        async with asyncio.timeout(WAIT_MAX_S):
            while in_progress:
                await asyncio.sleep(0.05)
                in_progress = (await metrics(self.gateway))["alipayhk_requests_in_progress"]
        self.upstream.requests.clear()
        request.request_id = new_id()

    async def _reported(self, request: Message, timeout_s: float | None) -> Reported:
        reported = await caller.call(self.gateway.channel, self.api, request, timeout_s=timeout_s)
        assert isinstance(reported, Reported), "the call returned OK"
        return reported

    def check_sent(self, request: Any, attempts: int = 1) -> Request:
        """Check that this request was sent exactly `attempts` times, unchanged; return the last one."""
        assert len(self.upstream.requests) == attempts > 0
        contents = {(self.id_of(sent), self.content(sent)) for sent in self.upstream.requests}
        ((request_id, content),) = contents
        assert request_id == request.request_id
        if request == self.api.request(request_id=request_id):
            assert content == self.api.body(request_id)
        return self.upstream.requests[-1]

    def content(self, sent: Request) -> bytes:
        """Verify a sent request; return the bytes of its business content."""
        return self.wallet.business(sent)

    def id_of(self, sent: Request) -> str:
        """Return the id of a sent request."""
        return id_of(sent)

    def doubt(self, reason: str, **how: Any) -> Expected:
        """Expect an unknown outcome; the caller may repeat the request if the RPC is idempotent."""
        return caller.doubt(reason, idempotent=self.idempotent, **how)


async def make_healthy(rpc: Rpc) -> Rpc:
    """Make successful calls, so that the shared gateway's breaker does not count failures of earlier tests.

    SyncLinkage goes first: after a response outside the time window, BindAccount is blocked until a
    response with the correct time arrives.
    """
    await caller.accepted(rpc.gateway.channel, SYNC, SYNC.request())
    await caller.accepted(rpc.gateway.channel, rpc.api, rpc.api.request())
    rpc.upstream.reset(rpc.wallet.says())
    return rpc


@pytest_asyncio.fixture(
    loop_scope="session", params=["SyncLinkage", "BindAccount", "BindAccount, idempotent"]
)
async def rpc(
    request: pytest.FixtureRequest,
    gateway: Gateway,
    idempotent_gateway: Gateway,
    upstream: Upstream,
    wallet: Wallet,
) -> Rpc:
    """Return each RPC in turn, and BindAccount as an idempotent one."""
    idempotent = request.param != "BindAccount"
    of = idempotent_gateway if "idempotent" in request.param else gateway
    api = SYNC if request.param == "SyncLinkage" else BIND
    return await make_healthy(Rpc(api, of, upstream, wallet, idempotent))


@pytest_asyncio.fixture(loop_scope="session")
async def sync(gateway: Gateway, upstream: Upstream, wallet: Wallet) -> Rpc:
    """Return SyncLinkage over the shared gateway."""
    return await make_healthy(Rpc(SYNC, gateway, upstream, wallet, idempotent=True))


@pytest_asyncio.fixture(loop_scope="session")
async def bind(gateway: Gateway, upstream: Upstream, wallet: Wallet) -> Rpc:
    """Return BindAccount over the shared gateway."""
    return await make_healthy(Rpc(BIND, gateway, upstream, wallet, idempotent=False))


@pytest_asyncio.fixture(loop_scope="session", params=["SyncLinkage", "BindAccount"])
async def either(
    request: pytest.FixtureRequest, gateway: Gateway, upstream: Upstream, wallet: Wallet
) -> Rpc:
    """Return each RPC in turn."""
    api = SYNC if request.param == "SyncLinkage" else BIND
    return await make_healthy(Rpc(api, gateway, upstream, wallet, idempotent=api is SYNC))
