"""The error of a call that did not return OK, with its outcome and the next step.

The values come from the `google.rpc.ErrorInfo` (domain `linkage.alipayhk`) in the status details.
https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

DOMAIN: Final = "linkage.alipayhk"
DETAILS: Final = "grpc-status-details-bin"
NO_MESSAGE: Final = "The status is OK, but there is no response message."


class Outcome(StrEnum):
    """The outcome of a call's content."""

    NOT_SENT = "not_sent"
    """This call sent nothing. An earlier `unknown` for the same request id stays `unknown`."""
    REJECTED = "rejected"
    """AlipayHK rejected the request in a verified response. The request had no effect."""
    UNKNOWN = "unknown"
    """The request may or may not have taken effect. Only OK or `rejected` for the same id resolves this."""


class Retry(StrEnum):
    """The next step for the caller."""

    SAME_REQUEST_ID = "same_request_id"
    """Wait `retry_after_s`, then send exactly the same request again."""
    NEW_REQUEST_ID = "new_request_id"
    """Correct the request, and send it with a new id."""
    NEVER = "never"
    """Stop: AlipayHK forbids a retry, or a newer update of the same linkage was already applied."""
    OPERATOR = "operator"
    """Stop, and contact the operators of the gateway."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One invalid field of a request."""

    field: str
    description: str


class RpcFailure(Protocol):
    """The common methods of the errors that synchronous and asyncio gRPC raise."""

    def code(self) -> grpc.StatusCode: ...  # noqa: D102
    def details(self) -> str | None: ...  # noqa: D102
    def trailing_metadata(self) -> object: ...  # noqa: D102


class LinkageError(Exception):
    """A call that did not return OK.

    Most callers need only `outcome` and `retry`. If the status did not come from the gateway (for example
    from this caller's own deadline, a proxy or a lost connection), `reason` is empty and `outcome` is
    `unknown`.
    """

    def __init__(  # noqa: PLR0913  (one argument for each attribute)
        self,
        code: grpc.StatusCode,
        sentence: str,
        *,
        outcome: Outcome = Outcome.UNKNOWN,
        reason: str = "",
        retry: Retry = Retry.SAME_REQUEST_ID,
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        request_id: str = "",
    ) -> None:
        # pickle and copy create the object from these two arguments, and then set the attributes.
        super().__init__(code, sentence)
        self.code = code
        """gRPC's status code."""
        self.sentence = sentence
        """The status message. If it comes from the gateway, it is a constant sentence."""
        self.outcome = outcome
        """The outcome of the call's content."""
        self.reason = reason
        """A value of ErrorReason without its prefix; empty if the status did not come from the gateway."""
        self.retry = retry
        """The next step."""
        self.retry_after_s = retry_after_s
        """Seconds to wait before sending the same request again; None if the gateway named no wait."""
        self.metadata: Mapping[str, str] = dict(metadata or {})
        """The whole ErrorInfo.metadata: attempts, result_code, result_message, tracer_id, error_id ..."""
        self.violations = violations
        """Every invalid field of the request."""
        self.request_id = request_id
        """The request id that the gateway received; empty if the gateway did not report it."""

    def __str__(self) -> str:
        """Return one line for a log. It contains no field of the request."""
        title = f"{self.code.name} {self.reason}".rstrip()
        return f"{title}: {self.sentence} (outcome: {self.outcome}, retry: {self.retry})"

    @classmethod
    def of(cls, failure: RpcFailure) -> LinkageError:
        """Return the LinkageError for an error of gRPC.

        Details that cannot be parsed are ignored, and the outcome is then `unknown`.
        """
        code, sentence = failure.code(), failure.details() or ""
        status = _status_of(failure)
        ours = [info for info in _unpacked(status, ErrorInfo) if info.domain == DOMAIN]
        if len(ours) != 1:  # two ErrorInfos can contradict each other, so neither is used
            return cls(code, sentence)
        info = ours[0]
        waits = [info.retry_delay.ToMilliseconds() / 1000 for info in _unpacked(status, RetryInfo)]
        found = (fault for bad in _unpacked(status, BadRequest) for fault in bad.field_violations)
        return cls(
            code,
            sentence,
            outcome=_member(Outcome, info.metadata.get("outcome"), Outcome.UNKNOWN),
            reason=info.reason,
            retry=_member(Retry, info.metadata.get("retry"), Retry.OPERATOR),
            retry_after_s=waits[0] if waits else None,
            metadata=info.metadata,
            violations=tuple(Violation(fault.field, fault.description) for fault in found),
            request_id=next((found.request_id for found in _unpacked(status, RequestInfo)), ""),
        )


_Enum = TypeVar("_Enum", bound=StrEnum)
_Detail = TypeVar("_Detail", bound=Message)


def _member(enum: type[_Enum], text: str | None, default: _Enum) -> _Enum:
    """Return the member with this value, or the default: a newer gateway can send values unknown here."""
    try:
        return enum(text or "")
    except ValueError:
        return default


def _status_of(failure: RpcFailure) -> Status:
    trailers = failure.trailing_metadata() or ()
    data = next((value for name, value in trailers if name == DETAILS), b"")  # type: ignore[attr-defined]
    try:
        return Status.FromString(data)
    except DecodeError:
        return Status()


def _unpacked(status: Status, kind: type[_Detail]) -> Iterator[_Detail]:
    """Return the details of one message type; skip those that cannot be parsed."""
    for detail in status.details:
        message = kind()
        try:
            if detail.Unpack(message):
                yield message
        except DecodeError:
            continue
