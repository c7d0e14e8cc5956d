"""The rows of the outcome table: which gRPC code, reason, outcome and retry each failure has.

This is the only module that chooses gRPC codes, apart from `result_codes`. `verdict.judged` reads it.
docs/outcomes.md is the same table for callers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from grpc import StatusCode

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.wire import errors


class Outcome(StrEnum):
    """Whether the content of the call took effect."""

    NOT_SENT = "not_sent"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Retry(StrEnum):
    """The next step that is safe for the caller."""

    SAME_REQUEST_ID = "same_request_id"
    NEW_REQUEST_ID = "new_request_id"
    NEVER = "never"
    OPERATOR = "operator"


RETRY_AFTER_S: Final = 1.0
SHUTTING_DOWN_RETRY_AFTER_S: Final = 0.1
"""Short, because another replica can serve the call immediately."""
RETRY_AFTER_MAX_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the outcome table."""

    code: StatusCode
    reason: reasons.ErrorReason
    outcome: Outcome
    retry: Retry
    if_idempotent: bool = False
    """Whether `retry` holds only for an idempotent API; for any other, an operator must decide."""
    retry_after_s: float = RETRY_AFTER_S


def _not_sent(code: StatusCode, reason: reasons.ErrorReason, retry: Retry) -> Row:
    return Row(code, reason, Outcome.NOT_SENT, retry)


def _unknown(code: StatusCode, reason: reasons.ErrorReason) -> Row:
    return Row(code, reason, Outcome.UNKNOWN, Retry.SAME_REQUEST_ID, if_idempotent=True)


def _alarm(reason: reasons.ErrorReason) -> Row:
    return Row(StatusCode.INTERNAL, reason, Outcome.UNKNOWN, Retry.OPERATOR)


UNSIGNED: Final = _unknown(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_RESPONSE_UNSIGNED)
UNSIGNED_CONFIGURATION: Final = _alarm(reasons.ERROR_REASON_RESPONSE_UNSIGNED)
HTTP_FAILURE: Final = _unknown(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_UPSTREAM_HTTP_ERROR)
HTTP_REFUSAL: Final = _alarm(reasons.ERROR_REASON_UPSTREAM_HTTP_ERROR)
RATE_LIMITED: Final = _unknown(StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_WALLET_RATE_LIMITED)
WALLET_UNKNOWN: Final = _unknown(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_WALLET_RESULT_UNKNOWN)
CONFIGURATION: Final = Row(
    StatusCode.INTERNAL, reasons.ERROR_REASON_GATEWAY_REFUSED, Outcome.REJECTED, Retry.OPERATOR
)
BUG: Final = _alarm(reasons.ERROR_REASON_GATEWAY_BUG)

# fmt: off
REFUSALS: Final[dict[int, Row]] = {row.reason: row for row in (
    _not_sent(StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_INVALID_REQUEST, Retry.NEW_REQUEST_ID),
    _not_sent(StatusCode.UNAUTHENTICATED, reasons.ERROR_REASON_CALLER_UNAUTHENTICATED, Retry.OPERATOR),
    _not_sent(StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_CALLER_NOT_ALLOWED, Retry.OPERATOR),
    _not_sent(StatusCode.DEADLINE_EXCEEDED, reasons.ERROR_REASON_DEADLINE_TOO_SHORT, Retry.SAME_REQUEST_ID),
    _not_sent(StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_OVERLOADED, Retry.SAME_REQUEST_ID),
    _not_sent(
        StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_CALLER_QUOTA_EXCEEDED, Retry.SAME_REQUEST_ID),
    Row(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_SHUTTING_DOWN, Outcome.NOT_SENT,
        Retry.SAME_REQUEST_ID, retry_after_s=SHUTTING_DOWN_RETRY_AFTER_S),
    _not_sent(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_CIRCUIT_OPEN, Retry.SAME_REQUEST_ID),
    _not_sent(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_LEDGER_UNAVAILABLE, Retry.SAME_REQUEST_ID),
    _not_sent(StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_REQUEST_ID_REUSED, Retry.NEW_REQUEST_ID),
    _not_sent(StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_STALE_BIZ_TIME, Retry.NEVER),
    _not_sent(StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_BIZ_TIME_TIE, Retry.NEW_REQUEST_ID),
    _not_sent(StatusCode.ABORTED, reasons.ERROR_REASON_LINKAGE_BUSY, Retry.SAME_REQUEST_ID),
    Row(StatusCode.ABORTED, reasons.ERROR_REASON_REQUEST_IN_PROGRESS,
        Outcome.UNKNOWN, Retry.SAME_REQUEST_ID),
    Row(StatusCode.UNKNOWN, reasons.ERROR_REASON_OUTCOME_IN_DOUBT, Outcome.UNKNOWN, Retry.OPERATOR),
    _not_sent(StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_BIZ_TIME_IN_FUTURE, Retry.NEW_REQUEST_ID),
)}

FAILURES: Final[dict[type[errors.CallError], Row]] = {
    errors.Unreachable: _not_sent(
        StatusCode.UNAVAILABLE, reasons.ERROR_REASON_UPSTREAM_UNREACHABLE, Retry.SAME_REQUEST_ID),
    errors.TlsInvalid: _not_sent(
        StatusCode.UNAVAILABLE, reasons.ERROR_REASON_UPSTREAM_TLS_INVALID, Retry.OPERATOR),
    errors.LeaseExpired: _not_sent(
        StatusCode.UNAVAILABLE, reasons.ERROR_REASON_LEDGER_UNAVAILABLE, Retry.SAME_REQUEST_ID),
    errors.Timeout: _unknown(StatusCode.DEADLINE_EXCEEDED, reasons.ERROR_REASON_UPSTREAM_TIMEOUT),
    errors.ConnectionLost: _unknown(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_CONNECTION_LOST),
    errors.Truncated: _unknown(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_RESPONSE_TRUNCATED),
    errors.SignatureInvalid: _alarm(reasons.ERROR_REASON_RESPONSE_SIGNATURE_INVALID),
    errors.Replayed: _alarm(reasons.ERROR_REASON_RESPONSE_REPLAYED),
    errors.Repeated: _unknown(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_RESPONSE_REPLAYED),
    errors.OutsideWindow: _alarm(reasons.ERROR_REASON_RESPONSE_REPLAYED),
    errors.Malformed: _alarm(reasons.ERROR_REASON_RESPONSE_MALFORMED),
    errors.NotEncrypted: _alarm(reasons.ERROR_REASON_RESPONSE_NOT_ENCRYPTED),
}
# fmt: on
