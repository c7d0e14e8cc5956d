"""One sandbox and one gateway for all tools, and certificates for TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.material import Material
from tests.peers.gateways import Gateway, Identities, gateway, identities, sandbox, tls
from tests.peers.tools import check, peer
from tests.ports import free_port


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Return keys and CAs."""
    return Material(tmp_path_factory.mktemp("peers"))


@pytest.fixture(scope="session")
def who(material: Material) -> Identities:
    """Return certificates."""
    return identities(material)


@pytest.fixture(scope="session")
def alipayhk(material: Material) -> Iterator[str]:
    """Return the sandbox's URL."""
    with sandbox(material) as url:
        yield url


@pytest.fixture(scope="session")
def plain(material: Material, alipayhk: str) -> Iterator[Gateway]:
    """Return a gateway in plaintext, with reflection."""
    with gateway(material, alipayhk) as serving:
        yield serving


@pytest.fixture(scope="session")
def without_reflection(material: Material, alipayhk: str) -> Iterator[Gateway]:
    """Return a gateway without reflection."""
    with gateway(material, alipayhk, REFLECTION="false") as serving:
        yield serving


@pytest.fixture(scope="session")
def over_tls(material: Material, alipayhk: str, who: Identities) -> Iterator[Gateway]:
    """Return a gateway over TLS that requires no client certificate."""
    with gateway(material, alipayhk, **tls(who)) as serving:
        yield serving


@pytest.fixture(scope="session")
def over_mtls(material: Material, alipayhk: str, who: Identities) -> Iterator[Gateway]:
    """Return a gateway that identifies callers by their certificates, with a plaintext health listener."""
    callers = material.directory / "callers.toml"
    callers.write_text('[callers.loyalty]\nsan = ["spiffe://corp/loyalty"]\nmethods = ["SyncLinkage"]\n')
    settings = tls(
        who,
        TLS_CLIENT_CA_FILE=who.ca,
        CALLERS_FILE=str(callers),
        HEALTH_LISTEN=f"127.0.0.1:{free_port()}",
    )
    with gateway(material, alipayhk, **settings) as serving:
        yield serving


@pytest.fixture(scope="session")
def grpcurl() -> Path:
    """Return grpcurl."""
    return peer("grpcurl")


@pytest.fixture(scope="session")
def health_probe() -> Path:
    """Return grpc-health-probe."""
    return peer("grpc-health-probe")


@pytest.fixture(scope="session")
def buf_curl() -> tuple[str | Path, ...]:
    """Return the command line of `buf curl` for gRPC."""
    return (check("buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge")
