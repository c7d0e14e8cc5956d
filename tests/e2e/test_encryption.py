"""Encrypted bodies, which the tests read and write with plain cryptography; and undecryptable responses."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, unquote

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from tests.e2e.caller import Reported, alarm
from tests.e2e.conftest import Rpc, Run, RunAll
from tests.e2e.gateway import Gateway
from tests.e2e.samples import SYNC
from tests.e2e.upstream import Request, Response, Upstream, responds
from tests.e2e.wallet import Wallet, compact, now

PADDINGS: Final = {
    "PKCS1V15": rsa_padding.PKCS1v15(),
    "OAEP_SHA256": rsa_padding.OAEP(rsa_padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=None),
}


@dataclass(frozen=True)
class Profile:
    """How bodies are encrypted."""

    mode: str = "ECB"
    bits: int = 256
    padding: str = "PKCS1V15"

    def __str__(self) -> str:
        return f"{self.mode}-{self.bits}-{self.padding}"

    @property
    def settings(self) -> dict[str, str]:
        """The gateway's settings for this encryption."""
        return {
            "ENCRYPT": "true",
            "ENCRYPTION_AES_MODE": self.mode,
            "ENCRYPTION_AES_BITS": str(self.bits),
            "ENCRYPTION_RSA_PADDING": self.padding,
        }

    def cipher(self, key: bytes, iv: bytes) -> Cipher[Any]:
        """Return the AES cipher for one body."""
        assert len(key) * 8 == self.bits
        return Cipher(algorithms.AES(key), modes.CBC(iv) if self.mode == "CBC" else modes.ECB())

    def open(self, key: RSAPrivateKey, line: str, text: bytes) -> tuple[bytes, bytes]:
        """Decrypt a body; return it and the AES key."""
        algorithm, version, wrapped = line.split(",")
        assert (algorithm, version) == ("algorithm=RSA_AES", "keyVersion=1")
        wrapped_key = base64.b64decode(unquote(wrapped.removeprefix("symmetricKey=")), validate=True)
        aes_key = key.decrypt(wrapped_key, PADDINGS[self.padding])
        data = base64.b64decode(text, validate=True)
        iv, data = (data[:16], data[16:]) if self.mode == "CBC" else (b"", data)
        decryptor, unpadder = self.cipher(aes_key, iv).decryptor(), PKCS7(128).unpadder()
        padded = decryptor.update(data) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize(), aes_key

    def seal(self, key: RSAPublicKey, body: bytes, *, padded: bool = True) -> tuple[str, bytes]:
        """Encrypt a body; return the value of the header Encrypt and the encrypted body."""
        aes_key, iv = os.urandom(self.bits // 8), os.urandom(16)
        padder, encryptor = PKCS7(128).padder(), self.cipher(aes_key, iv).encryptor()
        data = encryptor.update(padder.update(body) + padder.finalize() if padded else body)
        data = (iv if self.mode == "CBC" else b"") + data + encryptor.finalize()
        wrapped = base64.b64encode(key.encrypt(aes_key, PADDINGS[self.padding])).decode()
        line = f"algorithm=RSA_AES,keyVersion=1,symmetricKey={quote(wrapped, safe='')}"
        return line, base64.b64encode(data)


PROFILES: Final = [Profile("ECB", 256, "PKCS1V15"), Profile("CBC", 128, "OAEP_SHA256")]


def encrypted(wallet: Wallet, request: Request, line: str, text: bytes) -> Response:
    """Return a signed response with an encrypted body."""
    extra = (("Encrypt", line),)
    return wallet.header_signed(request, text, time=now(), client_id=wallet.client_id, extra=extra)


@dataclass(frozen=True)
class EncryptingRpc(Rpc):
    """SyncLinkage with encrypted bodies: sent requests are decrypted before they are compared."""

    profile: Profile

    def content(self, sent: Request) -> bytes:
        """Verify and decrypt a sent request; return the bytes of its business content."""
        text = self.wallet.business(sent)
        return self.profile.open(self.wallet.key, sent.header("Encrypt"), text)[0]

    def id_of(self, sent: Request) -> str:
        """Return the id in the encrypted body."""
        return str(json.loads(self.content(sent))["requestId"])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateways(run_all: RunAll) -> AsyncIterator[dict[str, Gateway]]:
    """Return a gateway for every profile."""
    async with run_all({str(profile): profile.settings for profile in PROFILES}) as gateways:
        yield gateways


@pytest.mark.parametrize("profile", PROFILES, ids=str)
async def test_every_encryption_profile_works_in_both_directions(
    gateways: dict[str, Gateway], upstream: Upstream, wallet: Wallet, profile: Profile
) -> None:
    def respond(request: Request) -> Response:
        return encrypted(wallet, request, *profile.seal(wallet.merchant, compact(SYNC.success)))

    keys = set()
    rpc = EncryptingRpc(SYNC, gateways[str(profile)], upstream, wallet, idempotent=True, profile=profile)
    for _ in range(2):
        upstream.reset(responds(respond))
        await rpc.accepted()
        (sent,) = upstream.requests
        assert sent.header("Content-Type") == "application/json; charset=UTF-8"
        keys.add(profile.open(wallet.key, sent.header("Encrypt"), sent.body)[1])
    assert len(keys) == 2, "every body has its own AES key"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def strict_gateway(run: Run) -> AsyncIterator[Gateway]:
    """Return a gateway that encrypts requests and refuses responses that are not encrypted."""
    more = {"REQUIRE_ENCRYPTED_RESPONSE": "true", "ENCRYPTION_CONTENT_TYPE": "text/plain; charset=UTF-8"}
    async with run(Profile().settings | more) as gateway:
        yield gateway


@pytest.fixture
def strict(strict_gateway: Gateway, upstream: Upstream, wallet: Wallet) -> EncryptingRpc:
    """Return SyncLinkage over that gateway."""
    return EncryptingRpc(SYNC, strict_gateway, upstream, wallet, idempotent=True, profile=Profile())


async def test_content_type_of_encrypted_bodies_is_a_setting(strict: EncryptingRpc) -> None:
    def respond(request: Request) -> Response:
        return encrypted(
            strict.wallet, request, *Profile().seal(strict.wallet.merchant, compact(SYNC.success))
        )

    await strict.accepted(responds(respond))
    assert strict.upstream.requests[0].header("Content-Type") == "text/plain; charset=UTF-8"


async def test_plain_response_is_refused_if_encryption_is_required(strict: EncryptingRpc) -> None:
    script = responds(strict.wallet.signed)
    await strict.refused(script, alarm("RESPONSE_NOT_ENCRYPTED"))


async def test_bind_account_is_never_encrypted(strict: EncryptingRpc, bind: Rpc) -> None:
    plain = replace(bind, gateway=strict.gateway)
    await plain.accepted()
    assert not plain.upstream.requests[0].has("Encrypt")


async def test_encrypted_response_to_a_plain_request_is_read(sync: Rpc) -> None:
    def respond(request: Request) -> Response:
        return encrypted(sync.wallet, request, *Profile().seal(sync.wallet.merchant, compact(SYNC.success)))

    await sync.accepted(responds(respond))


SUCCESS: Final = compact(SYNC.success)


BROKEN: Final[dict[str, Callable[[RSAPublicKey], tuple[str, bytes]]]] = {
    "wrap: an AES key of another size": lambda key: Profile(bits=128).seal(key, SUCCESS),
    "wrap: another padding": lambda key: Profile(padding="OAEP_SHA256").seal(key, SUCCESS),
    "header: empty": lambda key: ("", Profile().seal(key, SUCCESS)[1]),
    "body: not encrypted": lambda key: (Profile().seal(key, SUCCESS)[0], SUCCESS),
    "body: in another mode": lambda key: Profile(mode="CBC").seal(key, SUCCESS),
    "padding: none": lambda key: Profile().seal(key, b"\0" * 32, padded=False),
    "padding: too much": lambda key: Profile().seal(key, b"\x11" * 32, padded=False),
    "inside: no JSON": lambda key: Profile().seal(key, b"hello"),
}
"""One or two faults of each layer; `tests/alipayhk/test_encrypted_answers.py` has all of them."""


async def test_every_broken_encryption_reports_the_same_error(strict: EncryptingRpc) -> None:
    public: dict[tuple[object, ...], list[str]] = {}
    for name, seal in BROKEN.items():
        strict.upstream.requests.clear()

        def respond(request: Request, sealed: tuple[str, bytes] = seal(strict.wallet.merchant)) -> Response:
            return encrypted(strict.wallet, request, *sealed)

        request = SYNC.request(request_id=f"e2e-broken-{len(name):04}")
        reported = await strict.refused(responds(respond), alarm("RESPONSE_MALFORMED"), request)
        public.setdefault(visible_parts(reported), []).append(name)
    assert len(public) == 1, public


def visible_parts(reported: Reported) -> tuple[object, ...]:
    """Return everything in a status that a caller can compare, except the request id and the tracer id."""
    metadata = tuple(sorted(item for item in reported.metadata.items() if item[0] != "tracer_id"))
    return reported.code, reported.message, metadata, len(reported.status.details), reported.pushback_ms
