"""One upstream and one gateway for all tests that do not disturb each other, in one event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

import pytest
import pytest_asyncio
from google.protobuf.message import Message

from tests.e2e import caller
from tests.e2e.caller import Expected, Reported
from tests.e2e.gateway import Gateway, Settings, running, running_all
from tests.e2e.material import Material
from tests.e2e.samples import BIND, CLIENT_ID, PATHS, SYNC, Api
from tests.e2e.upstream import Request, Script, Upstream, listening
from tests.e2e.wallet import Wallet, id_of

RESENDING_S: Final = 0.5
"""The deadline of a call that is sent again and again: enough for a few attempts."""
Run = Callable[..., AbstractAsyncContextManager[Gateway]]
RunAll = Callable[[Mapping[str, Settings]], AbstractAsyncContextManager[dict[str, Gateway]]]


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Return keys and certificates."""
    return Material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="session")
def wallet(material: Material) -> Wallet:
    """Return AlipayHK's side."""
    return Wallet(material.theirs.key, material.ours.key.public_key())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def listener() -> AsyncIterator[Upstream]:
    """Return the upstream of the whole session."""
    async with listening() as upstream:
        yield upstream


@pytest_asyncio.fixture(loop_scope="session")
async def upstream(listener: Upstream, wallet: Wallet) -> AsyncIterator[Upstream]:
    """Return the upstream as one test has it: nothing came yet, and every answer is a right one."""
    listener.reset(wallet.says())
    yield listener
    await listener.let_go()
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
    """Return what runs a gateway with more settings, for as long as a test needs it."""

    def running_with(more: Settings | None = None, **how: Any) -> AbstractAsyncContextManager[Gateway]:
        return running({**settings, **(more or {})}, **how)

    return running_with


@pytest.fixture(scope="session")
def run_all(settings: Settings) -> RunAll:
    """Return what runs several gateways, each with more settings."""

    def running_with(more: Mapping[str, Settings]) -> AbstractAsyncContextManager[dict[str, Gateway]]:
        return running_all({name: {**settings, **added} for name, added in more.items()})

    return running_with


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(run: Run) -> AsyncIterator[Gateway]:
    """Return the gateway that most tests share."""
    async with run() as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def promising_gateway(run: Run) -> AsyncIterator[Gateway]:
    """Return a gateway that was told of AlipayHK's promise for BindAccount."""
    async with run({"BIND_ACCOUNT_IDEMPOTENT": "true"}) as gateway:
        yield gateway


@dataclass(frozen=True)
class Way:
    """One RPC of one gateway over one upstream, as one test calls it."""

    api: Api
    gateway: Gateway
    upstream: Upstream
    wallet: Wallet
    promised: bool
    """Whether AlipayHK promises that the same request may be sent again."""

    async def accepted(
        self, script: Script | None = None, request: Message | None = None, **how: Any
    ) -> Any:
        """Call, be given OK, and have sent exactly one right request."""
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
        """Call, be told what is expected, and have sent what that takes.

        That is nothing; or one right request; or, where the gateway tries again by itself, the same
        one as often as it says.
        """
        self.upstream.script = script
        request = self.api.request() if request is None else request
        if timeout_s is None:
            timeout_s = RESENDING_S if expected.is_tried_again else caller.TIMEOUT_S
        reported = await self._reported(request, timeout_s)
        attempts = int(reported.metadata.get("attempts", "0"))
        if expected.is_tried_again and attempts > 1 and reported.info.reason == "UPSTREAM_TIMEOUT":
            # On a busy machine the last of several attempts had too little time for its own end.
            await self.upstream.request_came(attempts)
            self.check_sent(request, attempts)
            self.upstream.requests.clear()
            reported = await self._reported(request, 3 * timeout_s)
            attempts = int(reported.metadata.get("attempts", "0"))
        caller.check(reported, expected, request)
        if expected.outcome == "not_sent":
            assert self.upstream.requests == []
            return reported
        if expected.is_tried_again:
            await self.upstream.request_came(attempts)
        else:
            assert attempts == 1
        self.check_sent(request, attempts)
        return reported

    async def _reported(self, request: Message, timeout_s: float) -> Reported:
        reported = await caller.call(self.gateway.channel, self.api, request, timeout_s=timeout_s)
        assert isinstance(reported, Reported), "an OK that should not be"
        return reported

    def check_sent(self, request: Any, attempts: int = 1) -> Request:
        """Check that exactly so many requests came, each with this one's content; return the last."""
        assert len(self.upstream.requests) == attempts > 0
        contents = {(self.id_of(sent), self.content(sent)) for sent in self.upstream.requests}
        ((request_id, content),) = contents
        assert request_id == request.request_id
        if request == self.api.request(request_id=request_id):
            assert content == self.api.body(request_id)
        return self.upstream.requests[-1]

    def content(self, sent: Request) -> bytes:
        """Verify a request; return its business content, byte for byte."""
        return self.wallet.business(sent)

    def id_of(self, sent: Request) -> str:
        """Return a request's id."""
        return id_of(sent)

    def doubt(self, reason: str, **how: Any) -> Expected:
        """Expect an unknown outcome, as far as this way's promise goes."""
        return caller.doubt(reason, promised=self.promised, **how)


async def well(way: Way) -> Way:
    """Let AlipayHK be well, once: the breaker of a shared gateway must not add up many tests' faults.

    SyncLinkage goes first: after an answer outside the window BindAccount waits for one that agrees.
    """
    await caller.accepted(way.gateway.channel, SYNC, SYNC.request())
    await caller.accepted(way.gateway.channel, way.api, way.api.request())
    way.upstream.reset(way.wallet.says())
    return way


@pytest_asyncio.fixture(
    loop_scope="session", params=["SyncLinkage", "BindAccount", "BindAccount, promised"]
)
async def way(
    request: pytest.FixtureRequest,
    gateway: Gateway,
    promising_gateway: Gateway,
    upstream: Upstream,
    wallet: Wallet,
) -> Way:
    """Return each RPC in turn, and BindAccount under a promise of idempotency."""
    promised = request.param != "BindAccount"
    of = promising_gateway if "promised" in request.param else gateway
    api = SYNC if request.param == "SyncLinkage" else BIND
    return await well(Way(api, of, upstream, wallet, promised))


@pytest_asyncio.fixture(loop_scope="session")
async def sync(gateway: Gateway, upstream: Upstream, wallet: Wallet) -> Way:
    """Return SyncLinkage."""
    return await well(Way(SYNC, gateway, upstream, wallet, promised=True))


@pytest_asyncio.fixture(loop_scope="session")
async def bind(gateway: Gateway, upstream: Upstream, wallet: Wallet) -> Way:
    """Return BindAccount."""
    return await well(Way(BIND, gateway, upstream, wallet, promised=False))


@pytest_asyncio.fixture(loop_scope="session", params=["SyncLinkage", "BindAccount"])
async def either(
    request: pytest.FixtureRequest, gateway: Gateway, upstream: Upstream, wallet: Wallet
) -> Way:
    """Return each RPC in turn."""
    api = SYNC if request.param == "SyncLinkage" else BIND
    return await well(Way(api, gateway, upstream, wallet, promised=api is SYNC))
