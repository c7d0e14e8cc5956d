"""Gateways with a ledger that outlives them, over the upstream and the keys of tests/e2e."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.e2e.conftest import Run, listener, material, run, run_all, settings, upstream, wallet
from tests.e2e.gateway import Settings
from tests.e2e.upstream import Upstream
from tests.e2e.wallet import Wallet
from tests.scenarios.scene import Scene, kept_in

__all__ = ["listener", "material", "run", "run_all", "settings", "upstream", "wallet"]

Stage = Callable[..., AbstractAsyncContextManager[Scene]]
QUICK: Final = {"UPSTREAM_TIMEOUT_S": "0.5"}


@pytest.fixture
def stage(run: Run, upstream: Upstream, wallet: Wallet, tmp_path: Path) -> Stage:
    """Return a function that runs a gateway on the test's own ledger; a test may run several in turn."""

    @asynccontextmanager
    async def staged(more: Settings | None = None) -> AsyncIterator[Scene]:
        async with run({**kept_in(tmp_path / "ledger.db"), **QUICK, **(more or {})}) as gateway:
            yield Scene(gateway, upstream, wallet)

    return staged


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kept(
    run: Run,
    listener: Upstream,
    wallet: Wallet,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Scene]:
    """Run a gateway that the tests of one module share."""
    file = tmp_path_factory.mktemp("kept") / "ledger.db"
    async with run({**kept_in(file), **QUICK}) as gateway:
        yield Scene(gateway, listener, wallet)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def promised(
    run: Run,
    listener: Upstream,
    wallet: Wallet,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Scene]:
    """Run a second shared gateway, with BIND_ACCOUNT_IDEMPOTENT."""
    file = tmp_path_factory.mktemp("promised") / "ledger.db"
    async with run({**kept_in(file), **QUICK, "BIND_ACCOUNT_IDEMPOTENT": "true"}) as gateway:
        yield Scene(gateway, listener, wallet)


@pytest.fixture
def scene(kept: Scene, upstream: Upstream) -> Scene:
    """Return the shared gateway; its upstream has received no request yet."""
    return kept


@pytest.fixture
def promising(promised: Scene, upstream: Upstream) -> Scene:
    """Return the shared gateway with BIND_ACCOUNT_IDEMPOTENT; its upstream has received no request yet."""
    return promised
