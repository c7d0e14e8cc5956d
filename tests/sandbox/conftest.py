"""Fixtures: keys, generated once, and a sandbox on its own port for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from sandbox.server import running
from tests.sandbox.callers import KeyRing, Merchant, merchant_of, write_private, write_public


@pytest.fixture(scope="session")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """Return both sides' keys."""
    directory = tmp_path_factory.mktemp("keys")
    wallet, merchant = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    return KeyRing(
        wallet,
        merchant,
        write_private(directory / "wallet.pem", wallet),
        write_public(directory / "merchant.pem", merchant.public_key()),
    )


@pytest.fixture
async def merchant(ring: KeyRing) -> AsyncIterator[Merchant]:
    """Return a caller of a running sandbox."""
    async with running(ring.usual) as url, merchant_of(url, ring) as caller:
        yield caller


class Sleeps(list[float]):
    """Records the requested sleeps, and does not sleep."""

    async def __call__(self, delay_s: float) -> None:
        """Record a sleep."""
        self.append(delay_s)


@pytest.fixture
def sleeps() -> Sleeps:
    """Return the sleeps of `sleepless`."""
    return Sleeps()


@pytest.fixture
async def sleepless(ring: KeyRing, sleeps: Sleeps) -> AsyncIterator[Merchant]:
    """Return a caller of a sandbox that records its sleeps."""
    async with running(ring.usual, sleep=sleeps) as url, merchant_of(url, ring) as caller:
        yield caller
