"""The verdict on a failed call: its gRPC code, reason, outcome and retry.

`verdict_of` is a pure function of the exception, the circumstances and the result codes; only the error id
of an unhandled exception is random. It works in two steps. So an attempt is judged once, when it ends, and
the ledger and every caller that waits for it start from the same verdict:

1. `judged` looks at the exception alone.

   | exception | code | outcome | retry |
   |---|---|---|---|
   | Refusal | of its row in REFUSALS | of its row | of its row; `operator` if a new id could act twice |
   | NotSent | of its row in FAILURES | not_sent | of its row |
   | NoAnswer, Repeated | of its row | unknown | same_request_id [1] |
   | any other AnswerError | INTERNAL | unknown | operator |
   | Unsigned, HTTP 429 | RESOURCE_EXHAUSTED | unknown | same_request_id [1] |
   | Unsigned, HTTP 408 or 5xx, or below 300 | UNAVAILABLE | unknown | same_request_id [1] |
   | Unsigned, other HTTP 3xx or 4xx, or an unverified configuration code | INTERNAL | unknown | operator |
   | ResultError, code REQUEST_TRAFFIC_EXCEED_LIMIT | RESOURCE_EXHAUSTED | unknown | same_request_id [1] |
   | ResultError, status is not F | UNAVAILABLE | unknown | same_request_id [1] |
   | ResultError, F, a configuration code | INTERNAL | rejected | operator |
   | ResultError, F, PROCESS_FAIL | FAILED_PRECONDITION | rejected | never |
   | ResultError, F, any other code | by `ResultCodes` | rejected | new_request_id |
   | any other exception | INTERNAL | unknown if sent or replayed, else not_sent | operator |

   [1] If the API is not idempotent, retry is `operator`, and the code is UNKNOWN instead of UNAVAILABLE:
   nothing that is unsafe to repeat is ever UNAVAILABLE.

2. `Verdict.in_view_of` looks at the circumstances: whether an earlier attempt at this request id may have
   taken effect. That attempt was in doubt, or hidden by a retry of the caller's client (ADR 10), or it
   overtook this one: then it is the later one.

   | outcome of step 1 | an earlier attempt may have taken effect | outcome | retry |
   |---|---|---|---|
   | any | no | as it is | as it is |
   | unknown | yes | unknown | as it is |
   | rejected, with a code that `ResultCodes` knows | yes | rejected | as it is |
   | rejected, with a code that no table knows [2] | yes | unknown | operator |
   | rejected, with a configuration code | yes | unknown | operator |
   | not_sent | yes | unknown | as it is |
   | not_sent, INVALID_REQUEST [3] | only hidden | not_sent | as it is |

   [2] The code may be AlipayHK's way of saying that the request was already applied.
   [3] The same content was invalid in every earlier attempt too, so none was sent.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus

from grpc import StatusCode

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.wire import errors
from clients.alipayhk.wire.result import FAILURE, Result

from . import table
from .circumstances import Circumstances
from .refusal import Refusal, ResolvedAsRejected, Violation, skew_fact
from .result_codes import CONFIGURATION_CODES, RATE_LIMITED, ResultCodes
from .sentences import DOUBTFUL_SENTENCES, SENTENCES
from .table import RETRY_AFTER_MAX_S, RETRY_AFTER_S, Outcome, Retry, Row


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status of a failed call; `details` encodes it."""

    code: StatusCode
    reason: reasons.ErrorReason
    outcome: Outcome
    retry: Retry
    retry_after_s: float = RETRY_AFTER_S
    facts: Mapping[str, str] = field(default_factory=dict)
    """More members of ErrorInfo.metadata."""
    violations: tuple[Violation, ...] = ()
    settled: bool = False
    """Whether a verified result proves the outcome, whatever earlier attempts did."""

    @property
    def reason_name(self) -> str:
        """The reason as ErrorInfo writes it."""
        return reasons.ErrorReason.Name(self.reason).removeprefix("ERROR_REASON_")

    @property
    def sentence(self) -> str:
        """The constant sentence for a person."""
        doubtful = self.outcome is Outcome.UNKNOWN and self.reason in DOUBTFUL_SENTENCES
        return (DOUBTFUL_SENTENCES if doubtful else SENTENCES)[self.reason]

    def in_view_of(self, call: Circumstances) -> Verdict:
        """Return the verdict for a reader with these circumstances: step 2 of the module's table."""
        facts = _present(attempts=str(call.attempts or ""), replayed="true" if call.replayed else "")
        verdict = replace(self, facts={**facts, **self.facts})
        hidden = call.hides_attempts and self.reason != reasons.ERROR_REASON_INVALID_REQUEST
        if not (call.in_doubt or hidden) or self.settled or self.outcome is Outcome.UNKNOWN:
            return verdict
        retry = self.retry if self.outcome is Outcome.NOT_SENT else Retry.OPERATOR
        return replace(verdict, outcome=Outcome.UNKNOWN, retry=retry)


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt failed: the error, and the verdict on it, which is made once."""

    error: errors.CallError
    verdict: Verdict


def verdict_of(error: Exception, call: Circumstances, codes: ResultCodes) -> Verdict:
    """Return the verdict on a call that ended with `error`: both steps of the module's table."""
    return judged(error, call, codes).in_view_of(call)


def judged(error: Exception, call: Circumstances, codes: ResultCodes) -> Verdict:
    """Return the verdict on an exception alone: step 1 of the module's table."""
    match error:
        case Refusal():
            verdict = _of_row(table.REFUSALS[error.reason], call)
            retry = Retry.OPERATOR if error.retry_by_operator else verdict.retry
            return replace(verdict, retry=retry, violations=error.violations, facts=_present(**error.facts))
        case errors.ResultError():
            return replace(_of_result(error.result, call, codes), facts=_result_facts(error))
        case errors.Unsigned():
            facts = _answer_facts(error) | _present(unverified_result_code=error.claimed_code)
            return replace(_of_unsigned(error, call), facts=facts)
        case errors.CallError():
            verdict = _of_row(table.FAILURES[type(error)], call)
            facts = _answer_facts(error) if isinstance(error, errors.AnswerError) else {}
            return replace(verdict, facts=facts)
        case _:
            outcome = Outcome.UNKNOWN if call.sent or call.replayed else Outcome.NOT_SENT
            facts = {"error_id": secrets.token_hex(8)}
            return replace(_of_row(table.BUG, call), outcome=outcome, facts=facts)


def _of_row(row: Row, call: Circumstances) -> Verdict:
    code, retry = row.code, row.retry
    if row.if_idempotent and not call.idempotent:
        retry = Retry.OPERATOR
        code = StatusCode.UNKNOWN if code is StatusCode.UNAVAILABLE else code
    return Verdict(code, row.reason, row.outcome, retry, row.retry_after_s)


def row_of_unsigned(error: errors.Unsigned) -> Row:
    """Return the row of an unsigned response, by what it claims and by its HTTP status."""
    status = error.http_status
    if error.claimed_code in CONFIGURATION_CODES:
        return table.UNSIGNED_CONFIGURATION
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return table.RATE_LIMITED
    if status == HTTPStatus.REQUEST_TIMEOUT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return table.HTTP_FAILURE
    return table.HTTP_REFUSAL if status >= HTTPStatus.MULTIPLE_CHOICES else table.UNSIGNED


def _of_unsigned(error: errors.Unsigned, call: Circumstances) -> Verdict:
    """Judge an unsigned response, which anybody may have written: it is never final."""
    row = row_of_unsigned(error)
    wait_s = min(error.retry_after_s or RETRY_AFTER_S, RETRY_AFTER_MAX_S)
    return replace(_of_row(row, call), retry_after_s=wait_s)


def _of_result(result: Result, call: Circumstances, codes: ResultCodes) -> Verdict:
    """Judge a verified result that is not S, first by its status, then by its code."""
    if result.code == RATE_LIMITED:
        return _of_row(table.RATE_LIMITED, call)
    if result.status != FAILURE:
        return _of_row(table.WALLET_UNKNOWN, call)
    if result.code in CONFIGURATION_CODES:
        return _of_row(table.CONFIGURATION, call)
    meaning = codes.meaning_of(call.api, result.code)
    retry = Retry.NEVER if meaning.never else Retry.NEW_REQUEST_ID
    rejected = reasons.ERROR_REASON_WALLET_REJECTED
    return Verdict(meaning.code, rejected, Outcome.REJECTED, retry, settled=meaning.known)


def _result_facts(error: errors.ResultError) -> dict[str, str]:
    if isinstance(error, ResolvedAsRejected):
        return {"resolved_by_operator": "true"}
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
