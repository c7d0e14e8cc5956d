"""From how a call ended to what its caller is told: the one place that chooses gRPC codes.

`verdict_of` is the contract's outcome table. A row that says `by_promise` depends on whether the same
request may be sent again: where AlipayHK promises idempotency the caller may repeat it, where it does
not the outcome is for an operator, and nothing unsafe to repeat is ever UNAVAILABLE.

`not_sent` speaks for the whole request, not for this call alone: where an earlier attempt is in doubt, or
may hide behind a retry of the caller's client (docs/adr/0010), it becomes `unknown`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from grpc import StatusCode

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.result import FAILURE, Result

from .call import Circumstances
from .refusal import Refusal, Violation, skew_fact
from .result_codes import RATE_LIMITED, SET_UP_CODES, ResultCodes
from .sentences import DOUBTFUL_SENTENCES, SENTENCES


class Outcome(StrEnum):
    """What happened to the content of the call."""

    NOT_SENT = "not_sent"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Retry(StrEnum):
    """What the caller may do next."""

    SAME_REQUEST_ID = "same_request_id"
    NEW_REQUEST_ID = "new_request_id"
    NEVER = "never"
    OPERATOR = "operator"


RETRY_AFTER_S: Final = 1.0
SHUTTING_DOWN_RETRY_AFTER_S: Final = 0.1
"""A replica that is not shutting down answers at once."""
RETRY_AFTER_MAX_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the caller is told; `details` writes it."""

    code: StatusCode
    reason: reasons.ErrorReason
    outcome: Outcome
    retry: Retry
    retry_after_s: float = RETRY_AFTER_S
    facts: Mapping[str, str] = field(default_factory=dict)
    """More members of ErrorInfo.metadata."""
    violations: tuple[Violation, ...] = ()

    @property
    def reason_name(self) -> str:
        """The reason as ErrorInfo writes it."""
        return reasons.ErrorReason.Name(self.reason).removeprefix("ERROR_REASON_")

    @property
    def sentence(self) -> str:
        """The constant sentence for a person."""
        doubtful = self.outcome is Outcome.UNKNOWN and self.reason in DOUBTFUL_SENTENCES
        return (DOUBTFUL_SENTENCES if doubtful else SENTENCES)[self.reason]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the outcome table."""

    code: StatusCode
    reason: reasons.ErrorReason
    outcome: Outcome
    retry: Retry
    by_promise: bool = False
    """Whether the retry, and the code where that is UNAVAILABLE, depend on idempotency."""
    retry_after_s: float = RETRY_AFTER_S


def _refused(code: StatusCode, reason: reasons.ErrorReason, retry: Retry) -> Row:
    return Row(code, reason, Outcome.NOT_SENT, retry)


def _unknown(code: StatusCode, reason: reasons.ErrorReason) -> Row:
    return Row(code, reason, Outcome.UNKNOWN, Retry.SAME_REQUEST_ID, by_promise=True)


def _alarm(reason: reasons.ErrorReason) -> Row:
    return Row(StatusCode.INTERNAL, reason, Outcome.UNKNOWN, Retry.OPERATOR)


def verdict_of(error: Exception, call: Circumstances, codes: ResultCodes) -> Verdict:
    """Decide what the caller is told of a call that ended with `error`."""
    facts = _present(attempts=str(call.attempts or ""), replayed="true" if call.replayed else "")
    match error:
        case Refusal():
            verdict = _verdict(REFUSALS[error.reason], call)
            retry = Retry.OPERATOR if error.retry_by_operator else verdict.retry
            verdict = replace(verdict, retry=retry, violations=error.violations)
            facts |= _present(**error.facts)
        case errors.ResultError():
            verdict = _of_result(error.result, call, codes)
            facts |= _result_facts(error)
        case errors.Unsigned():
            verdict = _of_unsigned(error, call)
            facts |= _answer_facts(error) | _present(unverified_result_code=error.claimed_code)
        case errors.CallError():
            verdict = _verdict(FAILURES[type(error)], call)
            facts |= _answer_facts(error) if isinstance(error, errors.AnswerError) else {}
        case _:
            outcome = Outcome.UNKNOWN if call.sent or call.replayed else Outcome.NOT_SENT
            verdict = replace(_verdict(BUG, call), outcome=outcome)
            facts["error_id"] = secrets.token_hex(8)
    hides_attempts = call.hides_attempts and verdict.reason != reasons.ERROR_REASON_INVALID_REQUEST
    if (call.in_doubt or hides_attempts) and verdict.outcome is Outcome.NOT_SENT:
        # This call sent nothing, but an earlier one may have taken effect.
        verdict = replace(verdict, outcome=Outcome.UNKNOWN)
    return replace(verdict, facts=facts)


def _verdict(row: Row, call: Circumstances) -> Verdict:
    code, retry = row.code, row.retry
    if row.by_promise and not call.idempotent:
        retry = Retry.OPERATOR
        code = StatusCode.UNKNOWN if code is StatusCode.UNAVAILABLE else code
    return Verdict(code, row.reason, row.outcome, retry, row.retry_after_s)


def _of_unsigned(error: errors.Unsigned, call: Circumstances) -> Verdict:
    """Read an HTTP error page, or a body that anybody may have written: never final."""
    status = error.http_status
    row = UNSIGNED
    if error.claimed_code in SET_UP_CODES:
        row = UNSIGNED_SET_UP
    elif status == HTTPStatus.TOO_MANY_REQUESTS:
        row = LIMITED
    elif status == HTTPStatus.REQUEST_TIMEOUT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        row = HTTP_FAILURE
    elif status >= HTTPStatus.MULTIPLE_CHOICES:
        row = HTTP_REFUSAL
    wait_s = min(error.retry_after_s or RETRY_AFTER_S, RETRY_AFTER_MAX_S)
    return replace(_verdict(row, call), retry_after_s=wait_s)


def _of_result(result: Result, call: Circumstances, codes: ResultCodes) -> Verdict:
    """Read a verified result that is not S: the status decides first, then the code."""
    if result.code == RATE_LIMITED:
        return _verdict(LIMITED, call)
    if result.status != FAILURE:
        return _verdict(WALLET_UNKNOWN, call)
    if result.code in SET_UP_CODES:
        outcome = Outcome.UNKNOWN if call.in_doubt or call.hides_attempts else Outcome.REJECTED
        return replace(_verdict(SET_UP, call), outcome=outcome)
    meaning = codes.meaning_of(call.api, result.code)
    rejected = reasons.ERROR_REASON_WALLET_REJECTED
    if (call.in_doubt or call.hides_attempts) and not meaning.known:
        # It may be this wallet's word for "already done".
        return Verdict(meaning.code, rejected, Outcome.UNKNOWN, Retry.OPERATOR)
    retry = Retry.NEVER if meaning.never else Retry.NEW_REQUEST_ID
    return Verdict(meaning.code, rejected, Outcome.REJECTED, retry)


def _result_facts(error: errors.ResultError) -> dict[str, str]:
    result = error.result
    return _present(
        result_status=result.status,
        result_code=result.code,
        result_message=result.message,
        tracer_id=error.tracer_id,
        http_status=str(error.http_status or ""),
    )


def _answer_facts(error: errors.AnswerError) -> dict[str, str]:
    facts = _present(http_status=str(error.http_status or ""), tracer_id=error.tracer_id)
    return facts | skew_fact(error.skew_s) if isinstance(error, errors.OutsideWindow) else facts


def _present(**facts: str) -> dict[str, str]:
    return {name: text for name, text in facts.items() if text}


UNSIGNED: Final = _unknown(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_RESPONSE_UNSIGNED)
UNSIGNED_SET_UP: Final = _alarm(reasons.ERROR_REASON_RESPONSE_UNSIGNED)
HTTP_FAILURE: Final = _unknown(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_UPSTREAM_HTTP_ERROR)
HTTP_REFUSAL: Final = _alarm(reasons.ERROR_REASON_UPSTREAM_HTTP_ERROR)
LIMITED: Final = _unknown(StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_WALLET_RATE_LIMITED)
WALLET_UNKNOWN: Final = _unknown(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_WALLET_RESULT_UNKNOWN)
SET_UP: Final = Row(
    StatusCode.INTERNAL, reasons.ERROR_REASON_GATEWAY_REFUSED, Outcome.REJECTED, Retry.OPERATOR
)
BUG: Final = _alarm(reasons.ERROR_REASON_GATEWAY_BUG)

# fmt: off
REFUSALS: Final[dict[int, Row]] = {row.reason: row for row in (
    _refused(StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_INVALID_REQUEST, Retry.NEW_REQUEST_ID),
    _refused(StatusCode.UNAUTHENTICATED, reasons.ERROR_REASON_CALLER_UNAUTHENTICATED, Retry.OPERATOR),
    _refused(StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_CALLER_NOT_ALLOWED, Retry.OPERATOR),
    _refused(StatusCode.DEADLINE_EXCEEDED, reasons.ERROR_REASON_DEADLINE_TOO_SHORT, Retry.SAME_REQUEST_ID),
    _refused(StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_OVERLOADED, Retry.SAME_REQUEST_ID),
    _refused(
        StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_CALLER_QUOTA_EXCEEDED, Retry.SAME_REQUEST_ID),
    Row(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_SHUTTING_DOWN, Outcome.NOT_SENT,
        Retry.SAME_REQUEST_ID, retry_after_s=SHUTTING_DOWN_RETRY_AFTER_S),
    _refused(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_CIRCUIT_OPEN, Retry.SAME_REQUEST_ID),
    _refused(StatusCode.UNAVAILABLE, reasons.ERROR_REASON_LEDGER_UNAVAILABLE, Retry.SAME_REQUEST_ID),
    _refused(StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_REQUEST_ID_REUSED, Retry.NEW_REQUEST_ID),
    _refused(StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_STALE_BIZ_TIME, Retry.NEVER),
    _refused(StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_BIZ_TIME_TIE, Retry.NEW_REQUEST_ID),
    _refused(StatusCode.ABORTED, reasons.ERROR_REASON_LINKAGE_BUSY, Retry.SAME_REQUEST_ID),
    Row(StatusCode.ABORTED, reasons.ERROR_REASON_REQUEST_IN_PROGRESS,
        Outcome.UNKNOWN, Retry.SAME_REQUEST_ID),
    Row(StatusCode.UNKNOWN, reasons.ERROR_REASON_OUTCOME_IN_DOUBT, Outcome.UNKNOWN, Retry.OPERATOR),
    _refused(StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_BIZ_TIME_IN_FUTURE, Retry.NEW_REQUEST_ID),
)}

FAILURES: Final[dict[type[errors.CallError], Row]] = {
    errors.Unreachable: _refused(
        StatusCode.UNAVAILABLE, reasons.ERROR_REASON_UPSTREAM_UNREACHABLE, Retry.SAME_REQUEST_ID),
    errors.TlsInvalid: _refused(
        StatusCode.UNAVAILABLE, reasons.ERROR_REASON_UPSTREAM_TLS_INVALID, Retry.OPERATOR),
    errors.LeaseExpired: _refused(
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
