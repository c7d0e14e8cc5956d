"""Gateways with a ledger that outlives them, over the upstream and the keys of tests/e2e."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from service.ledger.vault import make_key_file
from tests.e2e.conftest import Run, RunAll, listener, material, run, run_all, settings, upstream, wallet
from tests.e2e.gateway import Settings
from tests.e2e.upstream import Upstream
from tests.e2e.wallet import Wallet
from tests.scenarios.system import System, ledger_settings

__all__ = ["listener", "material", "run", "run_all", "settings", "upstream", "wallet"]

RunSystem = Callable[..., AbstractAsyncContextManager[System]]
RunReplicas = Callable[..., AbstractAsyncContextManager[list[System]]]
QUICK: Final = {"UPSTREAM_TIMEOUT_S": "0.5"}
"""For tests in which AlipayHK does not respond."""
PATIENT: Final = {"UPSTREAM_TIMEOUT_S": "10"}
"""For tests in which AlipayHK responds late: a busy machine needs time for what happens before."""


@pytest.fixture
def run_system(run: Run, upstream: Upstream, wallet: Wallet, tmp_path: Path) -> RunSystem:
    """Return a function that runs a gateway on the test's own ledger; a test may run several in turn."""

    @asynccontextmanager
    async def running_system(more: Settings | None = None) -> AsyncIterator[System]:
        async with run({**ledger_settings(tmp_path / "ledger.db"), **QUICK, **(more or {})}) as gateway:
            yield System(gateway, upstream, wallet)

    return running_system


@pytest.fixture(scope="module")
def run_replicas(
    run_all: RunAll, listener: Upstream, wallet: Wallet, tmp_path_factory: pytest.TempPathFactory
) -> RunReplicas:
    """Return a function that runs gateways on one PostgreSQL database, as on hosts of their own.

    Each has its own ports, and a directory with a copy of the key. The next gateway with its name finds it.
    """
    home = tmp_path_factory.mktemp("replicas")
    key_file = home / "ledger.key"
    make_key_file(key_file, random_bytes=os.urandom)

    def settings_of(name: str, url: str, more: Settings) -> Settings:
        own = home / sha256(url.encode()).hexdigest() / name / key_file.name
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(key_file, own)
        ledger = {"LEDGER_URL": url, "LEDGER_KEY_FILE": str(own), "BIND_ACCOUNT_WITHOUT_LEDGER": "false"}
        return {**ledger, **QUICK, **more}

    @asynccontextmanager
    async def running_replicas(url: str, names: str = "ab", **more: str) -> AsyncIterator[list[System]]:
        async with run_all({name: settings_of(name, url, more) for name in names}) as gateways:
            yield [System(gateway, listener, wallet) for gateway in gateways.values()]

    return running_replicas


def shared(more: Settings) -> Any:
    """Return a fixture that runs a gateway with these settings, which the tests of one module share."""

    @pytest_asyncio.fixture(scope="module", loop_scope="session")
    async def shared_by_module(
        run: Run, listener: Upstream, wallet: Wallet, tmp_path_factory: pytest.TempPathFactory
    ) -> AsyncIterator[System]:
        file = tmp_path_factory.mktemp("shared") / "ledger.db"
        async with run({**ledger_settings(file), **more}) as gateway:
            yield System(gateway, listener, wallet)

    return shared_by_module


shared_system = shared(PATIENT)
shared_quick_system = shared(QUICK)
shared_idempotent_system = shared({**QUICK, "BIND_ACCOUNT_IDEMPOTENT": "true"})


@pytest.fixture
def system(shared_system: System, upstream: Upstream) -> System:
    """Return the shared gateway; its upstream has received no request yet."""
    return shared_system


@pytest.fixture
def quick_system(shared_quick_system: System, upstream: Upstream) -> System:
    """Return the shared gateway with a short upstream timeout; its upstream has received no request yet."""
    return shared_quick_system


@pytest.fixture
def idempotent_system(shared_idempotent_system: System, upstream: Upstream) -> System:
    """Return the shared gateway with BIND_ACCOUNT_IDEMPOTENT; its upstream has received no request yet."""
    return shared_idempotent_system
