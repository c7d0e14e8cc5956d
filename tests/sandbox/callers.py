"""The merchant's side of a running sandbox: its requests, its client, and the console."""

from __future__ import annotations

import argparse
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import aiohttp
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from yarl import URL

from clients.alipayhk.client import Client
from clients.alipayhk.transport import Attempt, Transport
from clients.alipayhk.wire.clock import now_utc
from clients.alipayhk.wire.endpoint import Encryption, Endpoint
from clients.alipayhk.wire.keys import Keys
from clients.alipayhk.wire.messages import Headers, PlainRequest, SealedRequest, VerifiedResponse
from clients.alipayhk.wire.protocols.envelope_signed import EnvelopeSigned
from clients.alipayhk.wire.protocols.header_signed import HeaderSigned
from clients.alipayhk.wire.strict_json import write_json
from sandbox import cli
from sandbox.apis import APIS
from sandbox.options import Options, options_of
from tests.certificates import private_pem, public_pem

CLIENT_ID: Final = "4Q5Y8W0WSG45P907917"
FUNCTION: Final = "alipay.intl.merchant.account.bind"
PATHS: Final = {"SyncLinkage": "/sandbox/binding/sync", "BindAccount": "/sandbox/account/bind"}
USER_ID: Final = "2160000000000001"
NO_AUTHORITY: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts no authority. Created once, because loading the system's authorities takes longer than a test."""


@dataclass(frozen=True)
class KeyRing:
    """Both sides' keys, and the files that the sandbox reads them from."""

    wallet: RSAPrivateKey
    merchant: RSAPrivateKey
    wallet_file: Path
    merchant_file: Path

    def flags(self, **changes: str) -> dict[str, str]:
        """Return the required flags, with changes."""
        return {
            "listen": "127.0.0.1:0",
            "client_id": CLIENT_ID,
            "private_key_file": str(self.wallet_file),
            "merchant_public_key_files": f"1={self.merchant_file}",
            **changes,
        }

    @cached_property
    def usual(self) -> Options:
        """The options without changes, read once: reading a private key takes longer than most tests."""
        return self.options()

    def options(self, **changes: str) -> Options:
        """Read options as the command line does."""
        return options_of(parsed(self.flags(**changes)))


def parsed(flags: Mapping[str, str]) -> argparse.Namespace:
    """Parse flags as the command line does."""
    parser = argparse.ArgumentParser()
    cli.configure(parser)
    return parser.parse_args([f"--{name.replace('_', '-')}={value}" for name, value in flags.items()])


def write_private(path: Path, key: RSAPrivateKey) -> Path:
    """Write a private key as PEM."""
    path.write_bytes(private_pem(key))
    return path


def write_public(path: Path, key: RSAPublicKey) -> Path:
    """Write a public key as PEM."""
    path.write_bytes(public_pem(key))
    return path


def sync_body(request_id: str = "req-1", **changes: object) -> dict[str, object]:
    """Return the body of a BINDING_SYNC with changes; None removes a member."""
    members: dict[str, object] = {
        "requestId": request_id,
        "bizTime": 1_716_331_341_000,
        "bizType": "BINDING_SYNC",
        "operateType": "BIND",
        "externalIdentityType": "UID",
        "externalIdentityValue": "member-0001",
        "userId": USER_ID,
        "bindingTargetType": "USER_ID",
    }
    return {name: value for name, value in (members | changes).items() if value is not None}


def bind_body(**changes: object) -> dict[str, object]:
    """Return the body of an account.bind with changes; None removes a member."""
    members: dict[str, object] = {
        "merchantAccountId": "2160400000002012",
        "type": "TELECOM",
        "subType": "MOBILE_SERVICE",
        "source": "NORMAL",
        "accountId": "88781108",
        "userId": USER_ID,
        "timestamp": "1780849297416",
    }
    return {name: value for name, value in (members | changes).items() if value is not None}


def body_of(api: str, request_id: str = "req-1", **changes: object) -> dict[str, object]:
    """Return a body of either API."""
    return sync_body(request_id, **changes) if api == "SyncLinkage" else bind_body(**changes)


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: Headers
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """Return the value of a header, or None."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True)
class Merchant:
    """A caller of a running sandbox."""

    url: str
    endpoints: Mapping[str, Endpoint]
    session: aiohttp.ClientSession
    tls: ssl.SSLContext = NO_AUTHORITY

    def encrypting(self, encryption: Encryption | None = None, *, strictly: bool = False) -> Merchant:
        """Return a merchant that encrypts requests; if `strictly`, it also requires encrypted responses."""
        protocol = HeaderSigned(
            encryption or Encryption(), encrypt_requests=True, encrypted_answers_only=strictly
        )
        endpoints = {
            **self.endpoints,
            "SyncLinkage": replace(self.endpoints["SyncLinkage"], protocol=protocol),
        }
        return replace(self, endpoints=endpoints)

    def but(self, **changes: Any) -> Merchant:
        """Return a merchant with changes to both endpoints."""
        changed = {api: replace(endpoint, **changes) for api, endpoint in self.endpoints.items()}
        return replace(self, endpoints=changed)

    def seal(self, api: str, body: Mapping[str, object], request_id: str = "req-1") -> SealedRequest:
        """Seal a request as the client does."""
        endpoint = self.endpoints[api]
        request = PlainRequest(request_id, write_json(body), now_utc())
        return endpoint.protocol.seal_request(endpoint, request)

    async def call(
        self, api: str, body: Mapping[str, object], request_id: str = "req-1", *, timeout_s: float = 5.0
    ) -> VerifiedResponse:
        """Call as the gateway does; raise the errors of its client."""
        transport = Transport(timeout_s=timeout_s, connect_timeout_s=2.0, tls=self.tls)
        try:
            return await Client(transport).call(
                self.endpoints[api], request_id, write_json(body), Attempt()
            )
        finally:
            await transport.close()

    async def send(self, sealed: SealedRequest, *, method: str = "POST", **changes: Any) -> Reply:
        """Send a sealed request, or other headers or another body instead."""
        headers = changes.get("headers", list(sealed.headers))
        return await self.http(method, sealed.path, data=changes.get("body", sealed.body), headers=headers)

    async def http(self, method: str, path: str, **arguments: Any) -> Reply:
        """Make any HTTP request."""
        url = URL(self.url + path, encoded=True)
        async with self.session.request(method, url, allow_redirects=False, **arguments) as response:
            raw = ((name.decode(), value.decode()) for name, value in response.raw_headers)
            return Reply(response.status, tuple(raw), await response.read())

    async def console(self, path: str) -> Any:
        """Return the JSON of a page of the console."""
        return (await self.http("GET", f"/__sandbox/{path}")).json()

    async def latest(self) -> Any:
        """Return the newest entry of the journal."""
        return (await self.console("requests"))["requests"][-1]

    async def effects(self, api: str, request_id: str = "req-1") -> int:
        """Return the number of effects of a request id."""
        requests = (await self.console("wallet"))["requests"]
        return int(requests.get(api, {}).get(request_id, {"effects": 0})["effects"])

    async def programme(self, *faults: str, **more: object) -> Reply:
        """Set the faults of the next responses."""
        answers = [{"fault": fault} for fault in faults]
        return await self.http("POST", "/__sandbox/answers", json={"answers": answers, **more})


@asynccontextmanager
async def merchant_of(url: str, ring: KeyRing) -> AsyncIterator[Merchant]:
    """Yield a merchant that calls the sandbox at `url`."""
    keys = Keys(ring.merchant, "1", {"1": ring.wallet.public_key()}, {"1": ring.merchant})
    endpoints: dict[str, Endpoint] = {
        api.name: Endpoint(
            api=api.name,
            protocol=EnvelopeSigned(api.function, "1.0.0") if api.function else HeaderSigned(),
            base_url=url,
            path=PATHS[api.name],
            client_id=CLIENT_ID,
            keys=keys,
            idempotent=False,
        )
        for api in APIS.values()
    }
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=10), connector=aiohttp.TCPConnector(force_close=True)
    ) as session:
        yield Merchant(url, endpoints, session)
