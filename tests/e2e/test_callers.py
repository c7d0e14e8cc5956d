"""Callers with certificates: the handshake authenticates them, and the allow-list limits their methods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.x509 import DNSName, IPAddress, RFC822Name, UniformResourceIdentifier
from grpc import StatusCode

from tests.certificates import Authority
from tests.e2e import caller
from tests.e2e.caller import Reported, not_sent
from tests.e2e.conftest import Run
from tests.e2e.gateway import Gateway, channel_to
from tests.e2e.material import Material
from tests.e2e.operations import REFLECTIONS, SERVING, health, reflect
from tests.e2e.samples import APIS, BIND, SERVICE, SYNC, new_id
from tests.e2e.upstream import Upstream
from tests.ports import free_port

CALLERS = """
[callers.loyalty]
san = ["spiffe://corp/loyalty"]
methods = ["SyncLinkage"]

[callers.billing]
san = ["billing.corp", "billing.old.corp"]
methods = ["BindAccount"]

[callers.both]
san = ["both.corp"]
methods = ["SyncLinkage", "BindAccount"]
"""
San = str | x509.GeneralName
UNLISTED = not_sent(StatusCode.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED", "operator")
NOT_ALLOWED = not_sent(StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED", "operator")


@dataclass(frozen=True)
class TlsGateway:
    """A gateway behind mutual TLS."""

    gateway: Gateway
    material: Material
    upstream: Upstream
    health_listen: str

    def channel(self, authority: Authority | None, *sans: San) -> grpc.aio.Channel:
        """Open a channel with a certificate for these names; without an authority, with no certificate."""
        root = self.material.callers_ca.file.read_bytes()
        if authority is None:
            return channel_to(self.gateway.address, grpc.ssl_channel_credentials(root))
        issued = authority.issue(new_id(), *sans)
        return channel_to(
            self.gateway.address, grpc.ssl_channel_credentials(root, issued.key, issued.chain)
        )

    def listed(self, *sans: San) -> grpc.aio.Channel:
        """Open a channel with a certificate that the callers' CA issued."""
        return self.channel(self.material.callers_ca, *sans)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_tls(run: Run, material: Material, listener: Upstream) -> AsyncIterator[TlsGateway]:
    """Run a gateway behind mutual TLS, with an allow-list."""
    callers = material.directory / "callers.toml"
    callers.write_text(CALLERS)
    server = material.callers_ca.issue("server", "127.0.0.1")
    health_listen = f"127.0.0.1:{free_port()}"
    settings = {
        "TLS_CERT_FILE": str(server.chain_file),
        "TLS_KEY_FILE": str(server.key_file),
        "TLS_CLIENT_CA_FILE": str(material.callers_ca.file),
        "CALLERS_FILE": str(callers),
        "HEALTH_LISTEN": health_listen,
    }
    async with run(settings) as gateway:
        yield TlsGateway(gateway, material, listener, health_listen)


@pytest.fixture
def tls(shared_tls: TlsGateway, upstream: Upstream) -> TlsGateway:
    """Return that gateway; its upstream has received no request yet."""
    assert upstream is shared_tls.upstream
    return shared_tls


@pytest.mark.parametrize("kind", ["none", "foreign", "plaintext"])
async def test_handshake_fails_without_a_certificate_of_the_callers_ca(tls: TlsGateway, kind: str) -> None:
    channels = {
        "none": lambda: tls.channel(None),
        "foreign": lambda: tls.channel(tls.material.foreign_ca, "both.corp"),
        "plaintext": lambda: channel_to(tls.gateway.address),
    }
    async with channels[kind]() as channel:
        for api in APIS:
            reported = await caller.call(channel, api, api.request())
            assert isinstance(reported, Reported)
            assert (reported.code, list(reported.status.details)) == (StatusCode.UNAVAILABLE, [])
        with pytest.raises(grpc.aio.AioRpcError):
            await health(channel)
    assert tls.upstream.requests == []


@pytest.mark.parametrize(
    "sans",
    [("reports.corp",), ("spiffe://corp/reports",), ("BOTH.corp.evil",), ("x.both.corp", "127.0.0.1")],
)
async def test_unlisted_certificate_is_allowed_only_health_calls(
    tls: TlsGateway, sans: tuple[str, ...]
) -> None:
    async with tls.listed(*sans) as channel:
        for api in APIS:
            await caller.refused(channel, api, api.request(), UNLISTED)
        for name in REFLECTIONS:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await reflect(channel, name, list_services="")
            caller.check(caller.reported(raised.value), UNLISTED)
        for service in ("", SERVICE, "liveness"):
            assert await health(channel, service) == SERVING
    assert tls.upstream.requests == []


UNCLEAN = "a name in the certificate contains a character that is not printable ASCII"
NO_CALLER = "no name in the certificate belongs to a caller"
TWO_CALLERS = "the certificate names more than one caller"
IMPOSTORS: dict[str, tuple[tuple[San, ...], str, str]] = {
    "a DNS name with a NUL": (
        (DNSName("both.corp\0.evil.com"),),
        r"DNS:both.corp\x00.evil.com",
        UNCLEAN,
    ),
    "a DNS name that ends with a NUL": ((DNSName("both.corp\0"),), r"DNS:both.corp\x00", UNCLEAN),
    "a URI with a NUL": (
        (UniformResourceIdentifier("spiffe://corp/loyalty\0/x"),),
        r"URI:spiffe://corp/loyalty\x00/x",
        UNCLEAN,
    ),
    "a control character after a listed name": (
        ("both.corp", DNSName("x\n.corp")),
        r"DNS:both.corp, DNS:x\n.corp",
        UNCLEAN,
    ),
    "a DNS name spelled as a URI": (
        (UniformResourceIdentifier("both.corp"),),
        "URI:both.corp",
        NO_CALLER,
    ),
    "a URI spelled as a DNS name": (
        (DNSName("spiffe://corp/loyalty"),),
        "DNS:spiffe://corp/loyalty",
        NO_CALLER,
    ),
    "a DNS name spelled as an e-mail address": ((RFC822Name("both.corp"),), "1 e-mail name", NO_CALLER),
    "e-mail and IP names": (
        (
            "spiffe://corp/reports",
            "reports.corp",
            RFC822Name("chan@reports.corp"),
            IPAddress(ip_address("10.0.0.1")),
            IPAddress(ip_address("::1")),
        ),
        "URI:spiffe://corp/reports, DNS:reports.corp, 1 e-mail name, 2 IP names",
        NO_CALLER,
    ),
    "the names of two callers": (
        ("both.corp", "spiffe://corp/loyalty"),
        "DNS:both.corp, URI:spiffe://corp/loyalty",
        TWO_CALLERS,
    ),
}


@pytest.mark.parametrize(("sans", "shown", "cause"), IMPOSTORS.values(), ids=IMPOSTORS.keys())
async def test_certificate_that_matches_no_single_caller_is_refused_with_its_names(
    tls: TlsGateway, sans: tuple[San, ...], shown: str, cause: str
) -> None:
    request: Any = SYNC.request()
    async with tls.listed(*sans) as channel:
        reported = await caller.refused(channel, SYNC, request, UNLISTED)
        assert reported.metadata["caller_names"] == shown
        await caller.refused(channel, BIND, BIND.request(), UNLISTED)
    record = await tls.gateway.call_logged(request.request_id)
    assert (record["caller_names"], record["cause"], record["caller"]) == (shown, cause, "")
    assert tls.upstream.requests == []


@pytest.mark.parametrize("sans", [("BOTH.Corp",), ("both.corp", "10.0.0.1", RFC822Name("chan@both.corp"))])
async def test_case_of_a_dns_name_and_names_of_other_types_are_ignored(
    tls: TlsGateway, sans: tuple[San, ...]
) -> None:
    async with tls.listed(*sans) as channel:
        await caller.accepted(channel, SYNC, SYNC.request())


async def test_unlisted_caller_learns_nothing_about_the_validity_of_its_request(tls: TlsGateway) -> None:
    async with tls.listed("reports.corp") as channel:
        for api in APIS:
            await caller.refused(channel, api, api.request(request_id=""), UNLISTED)
            caller.check(await caller.call(channel, api, b"\xff"), UNLISTED)


@pytest.mark.parametrize(
    ("san", "allowed"),
    [
        ("spiffe://corp/loyalty", {SYNC}),
        ("billing.corp", {BIND}),
        ("billing.old.corp", {BIND}),
        ("both.corp", {SYNC, BIND}),
    ],
)
async def test_caller_is_allowed_only_its_listed_methods(
    tls: TlsGateway, san: str, allowed: set[object]
) -> None:
    async with tls.listed("not-listed.corp", san) as channel:
        for api in APIS:
            tls.upstream.requests.clear()
            if api in allowed:
                await caller.accepted(channel, api, api.request())
            else:
                await caller.refused(channel, api, api.request(), NOT_ALLOWED)
            assert len(tls.upstream.requests) == (api in allowed)
        for name in REFLECTIONS:
            response = await reflect(channel, name, list_services="")
            assert SERVICE in {service.name for service in response.list_services_response.service}


async def test_caller_is_named_in_the_log(tls: TlsGateway) -> None:
    request = SYNC.request()
    request_id: str = request.request_id
    async with tls.listed("spiffe://corp/loyalty") as channel:
        await caller.accepted(channel, SYNC, request)
    record = await tls.gateway.call_logged(request_id)
    assert record["caller"] == "loyalty"


async def test_health_has_its_own_plaintext_listener(tls: TlsGateway) -> None:
    async with grpc.aio.insecure_channel(tls.health_listen) as channel:
        assert await health(channel) == SERVING
        reported = await caller.call(channel, SYNC, SYNC.request())
        assert (reported.code, list(reported.status.details)) == (StatusCode.UNIMPLEMENTED, [])


async def test_undecodable_probe_without_certificate_is_invalid_argument(tls: TlsGateway) -> None:
    async with grpc.aio.insecure_channel(tls.health_listen) as channel:
        method: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await method(b"\xff\xff", timeout=5)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "pars" not in str(raised.value.details())


async def test_tls_without_a_client_ca_accepts_every_client(
    run: Run, material: Material, upstream: Upstream
) -> None:
    server = material.callers_ca.issue("open-server", "127.0.0.1")
    settings = {"TLS_CERT_FILE": str(server.chain_file), "TLS_KEY_FILE": str(server.key_file)}
    credentials = grpc.ssl_channel_credentials(material.callers_ca.file.read_bytes())
    async with run(settings, credentials=credentials) as gateway:
        await asyncio.gather(*(caller.accepted(gateway.channel, api, api.request()) for api in APIS))
        async with channel_to(gateway.address) as plain:
            reported = await caller.call(plain, SYNC, SYNC.request())
            assert reported.code is StatusCode.UNAVAILABLE
    assert len(upstream.requests) == 2
