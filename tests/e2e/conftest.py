"""One upstream and one gateway for all tests that do not disturb each other, in one event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from google.protobuf.message import Message

from . import caller
from .caller import Expected, Told
from .gateway import Gateway, Settings, running, running_all
from .material import Material
from .samples import BIND, CLIENT_ID, PATHS, SYNC, Api
from .upstream import Request, Script, Upstream, listening
from .wallet import Wallet

HERE: Final = Path(__file__).parent
Run = Callable[..., AbstractAsyncContextManager[Gateway]]
RunAll = Callable[[Mapping[str, Settings]], AbstractAsyncContextManager[dict[str, Gateway]]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run every asynchronous test here in the loop of the processes and listeners that are shared."""
    for item in items:
        if HERE in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


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
        self, script: Script, expected: Expected, request: Message | None = None, **how: Any
    ) -> Told:
        """Call, be told what is expected, and have sent exactly one right request, or nothing."""
        self.upstream.script = script
        request = self.api.request() if request is None else request
        told = await caller.refused(self.gateway.channel, self.api, request, expected, **how)
        if expected.outcome == "not_sent":
            assert self.upstream.requests == []
        else:
            assert told.metadata["attempts"] == "1"
            self.check_sent(request)
        return told

    def check_sent(self, request: Any) -> Request:
        """Check that exactly one request came: this one."""
        (sent,) = self.upstream.requests
        business = self.wallet.business(sent)
        if request == self.api.request(request_id=request.request_id):
            assert business == self.api.body(request.request_id)
        return sent

    def doubt(self, reason: str, **how: Any) -> Expected:
        """Expect an unknown outcome, as far as this way's promise goes."""
        return caller.doubt(reason, promised=self.promised, **how)


@pytest.fixture(params=["SyncLinkage", "BindAccount", "BindAccount, promised"])
def way(request: pytest.FixtureRequest, upstream: Upstream, wallet: Wallet) -> Way:
    """Return each RPC in turn, and BindAccount under a promise of idempotency."""
    promised = request.param != "BindAccount"
    name = "promising_gateway" if "promised" in request.param else "gateway"
    api = SYNC if request.param == "SyncLinkage" else BIND
    return Way(api, request.getfixturevalue(name), upstream, wallet, promised)


@pytest.fixture
def sync(gateway: Gateway, upstream: Upstream, wallet: Wallet) -> Way:
    """Return SyncLinkage."""
    return Way(SYNC, gateway, upstream, wallet, promised=True)


@pytest.fixture
def bind(gateway: Gateway, upstream: Upstream, wallet: Wallet) -> Way:
    """Return BindAccount."""
    return Way(BIND, gateway, upstream, wallet, promised=False)


@pytest.fixture(params=["SyncLinkage", "BindAccount"])
def either(request: pytest.FixtureRequest, gateway: Gateway, upstream: Upstream, wallet: Wallet) -> Way:
    """Return each RPC in turn."""
    api = SYNC if request.param == "SyncLinkage" else BIND
    return Way(api, gateway, upstream, wallet, promised=api is SYNC)
