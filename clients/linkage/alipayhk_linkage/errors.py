"""What a call ended with that is not OK: what happened, and what to do next.

Source: the contract's outcome table, which `google.rpc.ErrorInfo` carries (domain `linkage.alipayhk`).
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


class Outcome(StrEnum):
    """What happened to the content of a call."""

    NOT_SENT = "not_sent"
    """This call sent nothing. It does not take back an `unknown` that you hold for the id already."""
    REJECTED = "rejected"
    """AlipayHK verifiably refused it for good; it had no effect."""
    UNKNOWN = "unknown"
    """It may or may not have taken effect; only OK or `rejected` for the same id ends the doubt."""


class Retry(StrEnum):
    """What to do next."""

    SAME_REQUEST_ID = "same_request_id"
    """Wait `retry_after_s`, and send the very same request again."""
    NEW_REQUEST_ID = "new_request_id"
    """Mend the request, and send it under a new id."""
    NEVER = "never"
    """Stop: AlipayHK says not to retry, or newer news has overtaken this."""
    OPERATOR = "operator"
    """Stop, and tell the people who run the gateway."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of a request."""

    field: str
    description: str


class RpcFailure(Protocol):
    """What gRPC raises, be it asyncio's or the synchronous one."""

    def code(self) -> grpc.StatusCode: ...  # noqa: D102
    def details(self) -> str | None: ...  # noqa: D102
    def trailing_metadata(self) -> object: ...  # noqa: D102


class LinkageError(Exception):
    """A call that did not end with OK.

    `outcome` is all that most callers need. A status that the gateway did not make (this caller's own
    deadline, a proxy, a lost connection) has no reason, and its outcome is `unknown`.
    """

    def __init__(  # noqa: PLR0913  (one argument for each thing that is told)
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
        # Pickle and copy make it anew from these two, and then set the attributes.
        super().__init__(code, sentence)
        self.code = code
        """gRPC's status code."""
        self.sentence = sentence
        """The status message: a constant sentence where the gateway made it."""
        self.outcome = outcome
        """What happened."""
        self.reason = reason
        """A value of ErrorReason without its prefix; empty where the gateway did not make the status."""
        self.retry = retry
        """What to do next."""
        self.retry_after_s = retry_after_s
        """Seconds to wait before the same request is sent again; None where the gateway named no wait."""
        self.metadata: Mapping[str, str] = dict(metadata or {})
        """The whole ErrorInfo.metadata: attempts, result_code, result_message, tracer_id, error_id ..."""
        self.violations = violations
        """Every fault of the request, where it was invalid."""
        self.request_id = request_id
        """The request id as the gateway read it; empty where it did not."""

    def __str__(self) -> str:
        """Tell it in a line, without any field of the request."""
        told = f"{self.code.name} {self.reason}".rstrip()
        return f"{told}: {self.sentence} (outcome: {self.outcome}, retry: {self.retry})"

    @classmethod
    def of(cls, failure: RpcFailure) -> LinkageError:
        """Read what gRPC raised. Details that cannot be read are none: the outcome is `unknown`."""
        code, sentence = failure.code(), failure.details() or ""
        status = _status_of(failure)
        ours = [info for info in _unpacked(status, ErrorInfo) if info.domain == DOMAIN]
        if len(ours) != 1:  # of two that contradict each other neither is to be believed
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


_Word = TypeVar("_Word", bound=StrEnum)
_Detail = TypeVar("_Detail", bound=Message)


def _member(words: type[_Word], text: str | None, otherwise: _Word) -> _Word:
    """Read a word that a newer gateway may know and this client not."""
    try:
        return words(text or "")
    except ValueError:
        return otherwise


def _status_of(failure: RpcFailure) -> Status:
    trailers = failure.trailing_metadata() or ()
    data = next((value for name, value in trailers if name == DETAILS), b"")  # type: ignore[attr-defined]
    try:
        return Status.FromString(data)
    except DecodeError:
        return Status()


def _unpacked(status: Status, kind: type[_Detail]) -> Iterator[_Detail]:
    """Return the details of a kind, but those that cannot be read."""
    for detail in status.details:
        message = kind()
        try:
            if detail.Unpack(message):
                yield message
        except DecodeError:
            continue
