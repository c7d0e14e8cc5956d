"""Call the gateway over a real channel, and check every detail of the status that it returns."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from tests.e2e.samples import Api

TIMEOUT_S: Final = 8.0
DETAILS_BYTES_MAX: Final = 6 * 1024
DETAILS: Final = "grpc-status-details-bin"
PUSHBACK: Final = "grpc-retry-pushback-ms"
_RESENT: Final = {
    "UPSTREAM_UNREACHABLE",
    "UPSTREAM_TIMEOUT",
    "CONNECTION_LOST",
    "RESPONSE_TRUNCATED",
    "UPSTREAM_HTTP_ERROR",
    "RESPONSE_UNSIGNED",
    "WALLET_RESULT_UNKNOWN",
}
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
_SENTENCES: Final[dict[tuple[str, str], str]] = {}
"""The first message seen for each reason and outcome: later ones must be equal."""


@dataclass(frozen=True)
class Reported:
    """A status other than OK, with its details and trailers."""

    code: StatusCode
    message: str
    trailers: Mapping[str, str | bytes]
    status: Status = field(default_factory=Status)

    @property
    def is_late(self) -> bool:
        """Whether the caller's deadline expired before the gateway's status arrived."""
        return self.code is StatusCode.DEADLINE_EXCEEDED and not self.trailers

    def details(self, kind: type[Any]) -> list[Any]:
        """Return every detail of one kind."""
        return [_unpacked(detail, kind) for detail in self.status.details if detail.Is(kind.DESCRIPTOR)]

    @property
    def info(self) -> ErrorInfo:
        """The one ErrorInfo."""
        (info,) = self.details(ErrorInfo)
        return info

    @property
    def metadata(self) -> dict[str, str]:
        """The one ErrorInfo's metadata."""
        return dict(self.info.metadata)

    @property
    def violations(self) -> list[tuple[str, str]]:
        """Every field violation: the field and what is wrong with it."""
        (bad,) = self.details(BadRequest)
        return [(violation.field, violation.description) for violation in bad.field_violations]

    @property
    def fields(self) -> list[str]:
        """The fields at fault."""
        return [name for name, _ in self.violations]

    @property
    def pushback_ms(self) -> int:
        """The trailer for gRPC's retry policy."""
        return int(self.trailers[PUSHBACK])


@dataclass(frozen=True)
class Expected:
    """One row of the outcome table."""

    code: StatusCode
    reason: str
    outcome: str
    retry: str
    pushback_ms: int | None = None
    """The exact trailer; None accepts -1, and also the wait of RetryInfo if there is one."""

    @property
    def is_resent(self) -> bool:
        """Whether the gateway itself resends the request until the caller's deadline."""
        return self.retry == "same_request_id" and self.reason in _RESENT


def not_sent(code: StatusCode, reason: str, retry: str = "same_request_id") -> Expected:
    """Expect that nothing was sent."""
    return Expected(code, reason, "not_sent", retry)


def alarm(reason: str) -> Expected:
    """Expect an unknown outcome that only an operator can resolve."""
    return Expected(StatusCode.INTERNAL, reason, "unknown", "operator")


def rejected(code: StatusCode, retry: str = "new_request_id") -> Expected:
    """Expect a final refusal by AlipayHK."""
    return Expected(code, "WALLET_REJECTED", "rejected", retry)


def doubt(reason: str, *, idempotent: bool, code: StatusCode = StatusCode.UNAVAILABLE) -> Expected:
    """Expect an unknown outcome: the caller may repeat an idempotent request, others need an operator."""
    if idempotent:
        return Expected(code, reason, "unknown", "same_request_id")
    return Expected(
        StatusCode.UNKNOWN if code is StatusCode.UNAVAILABLE else code, reason, "unknown", "operator"
    )


@dataclass
class Held:
    """A call that AlipayHK does not answer before the test releases it."""

    calling: asyncio.Task[Any]
    until: asyncio.Event

    async def release(self) -> Any:
        """Let AlipayHK respond; return the call's result."""
        self.until.set()
        return await self.calling


async def call(
    channel: grpc.aio.Channel, api: Api, request: Message | bytes, *, timeout_s: float | None = TIMEOUT_S
) -> Any:
    """Call; return the response or the reported status."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    method: Any = channel.unary_unary(api.path, response_deserializer=api.response.FromString)
    try:
        return await method(data, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        return reported(error)


async def refused(
    channel: grpc.aio.Channel,
    api: Api,
    request: Message,
    expected: Expected,
    *,
    timeout_s: float | None = TIMEOUT_S,
) -> Reported:
    """Call; check that the status is the expected one, and return it."""
    result = await call(channel, api, request, timeout_s=timeout_s)
    assert isinstance(result, Reported), "the call returned OK"
    check(result, expected, request)
    return result


async def accepted(channel: grpc.aio.Channel, api: Api, request: Message, **how: Any) -> Any:
    """Call; check that the status is OK, and return the response."""
    result = await call(channel, api, request, **how)
    assert not isinstance(result, Reported), result
    assert result.result.status == "S"
    assert not result.replayed
    assert not result.resolved_by_operator
    return result


def reported(error: grpc.aio.AioRpcError) -> Reported:
    """Read a status with its details and trailers."""
    trailers = dict(error.trailing_metadata() or ())
    plain = Reported(error.code(), error.details() or "", trailers)
    data = trailers.get(DETAILS)
    if not isinstance(data, bytes):
        return plain
    return replace(plain, status=Status.FromString(data))


def check(result: Reported, expected: Expected, request: Message | None = None) -> None:
    """Check the expected status, and the rules for every status that the gateway returns."""
    info = result.info
    found = (result.code, info.reason, info.metadata["outcome"], info.metadata["retry"])
    assert found == (expected.code, expected.reason, expected.outcome, expected.retry), info
    assert info.domain == "linkage.alipayhk"
    assert (result.status.code, result.status.message) == (result.code.value[0], result.message)
    assert re.fullmatch(r"[A-Za-z][A-Za-z_,;:'. -]+\.", result.message), "the message is a sentence"
    first_message = _SENTENCES.setdefault((info.reason, expected.outcome), result.message)
    assert first_message == result.message, "the message of a reason is constant"
    assert result.status.ByteSize() < DETAILS_BYTES_MAX
    _check_wait(result, expected)
    if request is not None:
        _check_request(result, request)


def _check_wait(result: Reported, expected: Expected) -> None:
    waits = result.details(RetryInfo)
    if expected.retry == "same_request_id":
        (wait,) = waits
        assert wait.retry_delay.ToMilliseconds() > 0
        assert result.pushback_ms in (wait.retry_delay.ToMilliseconds(), -1)
        assert expected.pushback_ms in (None, result.pushback_ms)
    else:
        assert waits == []
        assert result.pushback_ms == -1


def _check_request(result: Reported, request: Any) -> None:
    request_id: str = request.request_id
    ids = [detail.request_id for detail in result.details(RequestInfo)]
    limit = 64 if request.DESCRIPTOR.name == "BindAccountRequest" else 128
    valid = bool(_REQUEST_ID.fullmatch(request_id)) and len(request_id) <= limit
    assert ids == ([request_id] if valid else [])
    texts = [result.message, *(text for pair in violations_of(result) for text in pair)]
    texts += [text for name, text in result.metadata.items() if name != "result_message"]
    leaked = [value for value in values_of(request) if any(value in text for text in texts)]
    assert leaked == []


def violations_of(result: Reported) -> list[tuple[str, str]]:
    """Return every field violation, or nothing if the status has no BadRequest."""
    return result.violations if result.details(BadRequest) else []


def values_of(message: Message) -> Iterator[str]:
    """Yield every text in a message that is long enough to search for, except the request id."""
    for name, value in message.ListFields():
        if name.name == "request_id":
            continue
        if isinstance(value, Message) and not isinstance(value, Timestamp):
            yield from values_of(value)
        elif isinstance(value, Mapping):
            yield from (text for text in (*value, *value.values()) if len(text) > 3)
        elif isinstance(value, str) and len(value) > 3:
            yield value


def _unpacked(detail: Any, kind: type[Any]) -> Any:
    message = kind()
    assert detail.Unpack(message)
    return message
