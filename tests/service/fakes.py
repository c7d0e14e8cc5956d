"""Fakes of AlipayHK's client and of gRPC, and valid requests for tests to change."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck

from alipayhk.linkage.v1 import linkage_service_pb2 as pb
from clients.alipayhk.client import Client
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire.endpoint import Endpoint
from clients.alipayhk.wire.errors import ResultError
from clients.alipayhk.wire.messages import VerifiedResponse
from clients.alipayhk.wire.result import Result
from service.credentials.callers import ANYBODY, Caller
from service.credentials.in_use import InUse
from service.delivery.delivery import Delivery, Limits
from service.delivery.ledger_session import LedgerSession
from service.delivery.outbound_request import OutboundRequest
from service.ledger import Ledger
from service.ledger.memory import MemoryLedger
from service.ledger.vault import KEY_BYTES, Vault
from service.outcomes.call import Call
from service.outcomes.circumstances import Circumstances
from service.outcomes.result_codes import ResultCodes
from service.server.rpcs import sync_linkage
from service.telemetry.metrics import Metrics

FIXTURES_ARE_FINE: Final = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)
"""Health checks of hypothesis to suppress: no fixture here keeps state, and machines differ in speed."""

ANSWERED_AT: Final = datetime(2026, 3, 1, 8, 0, 1, tzinfo=UTC)


def verified(
    *, status: str = "S", code: str = "SUCCESS", message: str = "", **body: object
) -> VerifiedResponse:
    """Return a verified response."""
    return VerifiedResponse(
        http_status=200,
        result=Result(status, code, message=message),
        body=body,
        response_time=ANSWERED_AT,
        tracer_id="tracer-1",
    )


def refused(status: str, code: str = "", message: str = "") -> ResultError:
    """Return the error of a call with a verified response other than S."""
    answer = verified(status=status, code=code, message=message)
    return ResultError(answer.result, http_status=answer.http_status, tracer_id=answer.tracer_id)


def known(
    *,
    api: str = "SyncLinkage",
    idempotent: bool = True,
    sent: tuple[bool, ...] = (),
    in_doubt: bool = False,
    replayed: bool = False,
    **more: bool,
) -> Circumstances:
    """Return the circumstances of a call; `sent` says for each attempt whether a byte was sent."""
    return Circumstances(api, idempotent, len(sent), any(sent), in_doubt, replayed, **more)


def call_of(
    *, api: str = "SyncLinkage", idempotent: bool = True, left_s: float = 10.0, caller: Caller = ANYBODY
) -> Call:
    """Return a new call."""
    return Call(time.monotonic() + left_s, known(api=api, idempotent=idempotent), caller, "req-1")


def order_of(
    endpoint: Endpoint, request_id: str = "req-1", content: bytes = b"{}", **more: Any
) -> OutboundRequest:
    """Return an outbound request; it has a linkage only if one is given."""
    rpc = sync_linkage.RPC
    body = request_id.encode() + b" " + content
    return OutboundRequest(
        endpoint, request_id, body, content, rpc.response, more.pop("reply", rpc.reply), **more
    )


def vault_of(key: bytes = bytes(KEY_BYTES)) -> Vault:
    """Return a vault with a key of zeros."""
    return Vault(key, random_bytes=os.urandom)


def delivery_of(
    client: Client,
    metrics: Metrics,
    *,
    max_in_flight: int = 9,
    ledger: Ledger | None = None,
    chance: Callable[[], float] = lambda: 0.0,
) -> Delivery:
    """Return a delivery with a ledger in memory and the shortest waits between attempts."""
    session = LedgerSession(
        ledger or MemoryLedger(), vault_of(), metrics, lease_s=5.0, biz_time_ahead_s=300.0
    )
    return Delivery(
        client,
        session,
        metrics,
        apis=("SyncLinkage", "BindAccount"),
        codes=InUse(ResultCodes()),
        limits=Limits(max_in_flight, attempts_max=5),
        chance=chance,
    )


Behaviour = Callable[[Attempt], Awaitable[VerifiedResponse]]


class FakeClient(Client):
    """A client whose attempts end as `behaviour` decides."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or succeed
        self.attempts: list[Attempt] = []
        self.bodies: list[bytes] = []

    async def call(
        self, endpoint: Endpoint, request_id: str, body: bytes, attempt: Attempt
    ) -> VerifiedResponse:
        """Make one attempt."""
        self.attempts.append(attempt)
        self.bodies.append(body)
        attempt.signing_version = "1"
        return await self.behaviour(attempt)


async def succeed(attempt: Attempt) -> VerifiedResponse:
    """Return S, with one turn of the event loop before and after the first byte."""
    await asyncio.sleep(0)
    attempt.sent = True
    await asyncio.sleep(0)
    return verified()


async def turns(count: int = 5) -> None:
    """Run a few iterations of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


def fail(error: Exception, *, sent: bool = False) -> Behaviour:
    """Return a behaviour that raises an error."""

    async def behaviour(attempt: Attempt) -> VerifiedResponse:
        await asyncio.sleep(0)
        attempt.sent = sent
        raise error

    return behaviour


class Gate:
    """A behaviour that waits before the first byte, or after it, until a test sets `open`."""

    def __init__(self, *, sent: bool) -> None:
        self.open = asyncio.Event()
        self.reached = asyncio.Event()
        self._sent = sent

    async def __call__(self, attempt: Attempt) -> VerifiedResponse:
        """Make one attempt."""
        attempt.sent = self._sent
        self.reached.set()
        await self.open.wait()
        attempt.sent = True
        return verified()


@lru_cache
def certificate_of(sans: tuple[str, ...], *extensions: x509.ExtensionType) -> bytes:
    """Return a certificate for DNS names and URIs, with further extensions, as PEM."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    names = [x509.UniformResourceIdentifier(san) if "://" in san else x509.DNSName(san) for san in sans]
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(ANSWERED_AT)
        .not_valid_after(ANSWERED_AT + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class FakeContext:
    """The part of a call's context that the server uses."""

    def __init__(
        self,
        *,
        remaining_s: float | None = 10.0,
        sans: tuple[str, ...] = (),
        metadata: tuple[tuple[str, str | bytes], ...] = (),
    ) -> None:
        self.remaining_s = remaining_s
        self.metadata = metadata
        self.sans = sans
        self.aborted: list[tuple[grpc.StatusCode, str, Any]] = []
        self.code_given: object = None
        self.message: object = sync_request()
        self.written: list[object] = []

    async def read(self) -> object:
        """Return the call's message."""
        return self.message

    async def write(self, response: object) -> None:
        """Send a response."""
        self.written.append(response)

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's deadline."""
        return self.remaining_s

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return the metadata of the request."""
        return self.metadata

    def auth_context(self) -> dict[str, tuple[bytes, ...]]:
        """Return the caller's certificate."""
        return {"x509_pem_cert": (certificate_of(self.sans),)} if self.sans else {}

    def code(self) -> object:
        """Return the code of an abort."""
        return self.code_given

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        """End the call."""
        self.aborted.append((code, details, trailing_metadata))
        self.code_given = code
        raise grpc.aio.AbortError


class Details(grpc.HandlerCallDetails):  # type: ignore[misc, unused-ignore]
    """The details of a call: its method."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


class LogStream(io.StringIO):
    """A stream of log lines that returns them parsed."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Read every line; each must be one JSON object."""
        lines = self.getvalue().split("\n")
        assert lines.pop() == ""
        return [dict(json.loads(line)) for line in lines]

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event."""
        return [line for line in self.lines if line["event"] == event]


def sync_request(**changes: Any) -> pb.SyncLinkageRequest:
    """Return a valid request with changed fields; None removes a field."""
    fields: dict[str, Any] = {
        "request_id": "req-1",
        "biz_time": {"seconds": 1_700_000_000, "nanos": 123_456_789},
        "operate_type": pb.OPERATE_TYPE_BIND,
        "external_identity_type": pb.EXTERNAL_IDENTITY_TYPE_UID,
        "external_identity_value": "member-0001",
        "user_id": "2160000000000001",
        "binding_target_type": pb.BINDING_TARGET_TYPE_USER_ID,
    }
    return pb.SyncLinkageRequest(**_present(fields | changes))


def bind_request(**changes: Any) -> pb.BindAccountRequest:
    """Return a valid request with changed fields; None removes a field."""
    fields: dict[str, Any] = {
        "request_id": "req-1",
        "merchant_account_id": "2160400000002012",
        "type": "TELECOM",
        "sub_type": "MOBILE_SERVICE",
        "account_id": "88781108",
        "user_id": "2160000000000001",
        "timestamp": {"seconds": 1_700_000_000, "nanos": 123_456_789},
    }
    return pb.BindAccountRequest(**_present(fields | changes))


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
