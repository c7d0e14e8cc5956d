"""The contract's outcome table, written out a second time, compared with `verdict_of`."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from grpc import StatusCode

import service
from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.wire import errors
from service.outcomes import sentences
from service.outcomes.circumstances import Circumstances
from service.outcomes.refusal import Refusal, ResolvedAsRejected, Violation
from service.outcomes.result_codes import Meaning, ResultCodes
from service.outcomes.sentences import SENTENCES
from service.outcomes.table import FAILURES, REFUSALS, RETRY_AFTER_MAX_S, RETRY_AFTER_S
from service.outcomes.verdict import Verdict, verdict_of
from tests.service.fakes import known, refused

PROMISED: Final = True
"""Whether the row depends on the API being idempotent."""


@dataclass(frozen=True)
class Case:
    """One row: the failure, and the verdict on a call of an idempotent API."""

    what: str
    error: Exception
    code: StatusCode
    reason: str
    outcome: str
    retry: str
    by_promise: bool = False
    in_doubt: bool = False
    """Whether an earlier attempt, by this call or by another, may have taken effect."""

    def known(self, *, api: str = "SyncLinkage", idempotent: bool = True) -> Circumstances:
        """Return the circumstances of a call that made one attempt, which failed in this way."""
        sent = (True,) if getattr(self.error, "sent", False) else ()
        return known(api=api, idempotent=idempotent, sent=sent, in_doubt=self.in_doubt)

    def reported(self, *, idempotent: bool) -> tuple[StatusCode, str, str, str]:
        """Return the verdict of the contract: its table, and the note below it."""
        code, retry = self.code, self.retry
        if self.by_promise and not idempotent:
            retry = "operator"
            code = StatusCode.UNKNOWN if code is StatusCode.UNAVAILABLE else code
        return code, self.reason, self.outcome, retry


def refusal(name: str) -> Refusal:
    reason: reasons.ErrorReason = getattr(reasons, f"ERROR_REASON_{name}")
    return Refusal(reason)


def unsigned(http_status: int, claimed_code: str = "", retry_after_s: float = 0.0) -> errors.Unsigned:
    return errors.Unsigned(
        "no signature", http_status=http_status, claimed_code=claimed_code, retry_after_s=retry_after_s
    )


C: Final = StatusCode
SAME, NEW, NEVER, OPERATOR = "same_request_id", "new_request_id", "never", "operator"
SET_UP: Final = (
    "INVALID_SIGNATURE",
    "INVALID_CLIENT",
    "KEY_NOT_FOUND",
    "ACCESS_DENIED",
    "INVALID_API",
    "METHOD_NOT_SUPPORTED",
    "MEDIA_TYPE_NOT_ACCEPTABLE",
)
DOCUMENTED: Final = (
    "USER_STATUS_ABNORMAL",
    "INVALID_CONTRACT",
    "INVALID_CODE",
    "EXPIRED_CODE",
    "CURRENCY_NOT_SUPPORT",
    "AUTH_CODE_EXPIRED",
    "INVALID_AUTHCODE",
    "OAUTH_FAILED",
)
UNDOCUMENTED: Final = ("A_CODE_THAT_NO_TABLE_KNOWS", "param_illegal", "語")

# fmt: off
ROWS: Final = (
    Case("the request is invalid", refusal("INVALID_REQUEST"),
         C.INVALID_ARGUMENT, "INVALID_REQUEST", "not_sent", NEW),
    Case("the certificate is in no allow-list", refusal("CALLER_UNAUTHENTICATED"),
         C.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED", "not_sent", OPERATOR),
    Case("the caller is not allowed to call this method", refusal("CALLER_NOT_ALLOWED"),
         C.PERMISSION_DENIED, "CALLER_NOT_ALLOWED", "not_sent", OPERATOR),
    Case("under 100 ms left", refusal("DEADLINE_TOO_SHORT"),
         C.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT", "not_sent", SAME),
    Case("too much at once here", refusal("OVERLOADED"),
         C.RESOURCE_EXHAUSTED, "OVERLOADED", "not_sent", SAME),
    Case("too much at once of this caller", refusal("CALLER_QUOTA_EXCEEDED"),
         C.RESOURCE_EXHAUSTED, "CALLER_QUOTA_EXCEEDED", "not_sent", SAME),
    Case("shutting down", refusal("SHUTTING_DOWN"),
         C.UNAVAILABLE, "SHUTTING_DOWN", "not_sent", SAME),
    Case("breaker open", refusal("CIRCUIT_OPEN"),
         C.UNAVAILABLE, "CIRCUIT_OPEN", "not_sent", SAME),
    Case("ledger unusable before sending", refusal("LEDGER_UNAVAILABLE"),
         C.UNAVAILABLE, "LEDGER_UNAVAILABLE", "not_sent", SAME),
    Case("DNS, refused, connect or handshake timeout", errors.Unreachable("x"),
         C.UNAVAILABLE, "UPSTREAM_UNREACHABLE", "not_sent", SAME),
    Case("AlipayHK's TLS certificate is not valid", errors.TlsInvalid("x"),
         C.UNAVAILABLE, "UPSTREAM_TLS_INVALID", "not_sent", OPERATOR),
    Case("request id used before with other content", refusal("REQUEST_ID_REUSED"),
         C.FAILED_PRECONDITION, "REQUEST_ID_REUSED", "not_sent", NEW),
    Case("an older biz_time than one already applied", refusal("STALE_BIZ_TIME"),
         C.FAILED_PRECONDITION, "STALE_BIZ_TIME", "not_sent", NEVER),
    Case("the same biz_time with other content", refusal("BIZ_TIME_TIE"),
         C.FAILED_PRECONDITION, "BIZ_TIME_TIE", "not_sent", NEW),
    Case("the same request is in progress elsewhere", refusal("REQUEST_IN_PROGRESS"),
         C.ABORTED, "REQUEST_IN_PROGRESS", "unknown", SAME),
    Case("another request for this linkage is in progress", refusal("LINKAGE_BUSY"),
         C.ABORTED, "LINKAGE_BUSY", "not_sent", SAME),
    Case("an earlier BindAccount of this id is in doubt", refusal("OUTCOME_IN_DOUBT"),
         C.UNKNOWN, "OUTCOME_IN_DOUBT", "unknown", OPERATOR),
    Case("biz_time too far ahead", refusal("BIZ_TIME_IN_FUTURE"),
         C.INVALID_ARGUMENT, "BIZ_TIME_IN_FUTURE", "not_sent", NEW),
    Case("sent, no answer in time", errors.Timeout("x"),
         C.DEADLINE_EXCEEDED, "UPSTREAM_TIMEOUT", "unknown", SAME, PROMISED),
    Case("sent, connection lost", errors.ConnectionLost("x"),
         C.UNAVAILABLE, "CONNECTION_LOST", "unknown", SAME, PROMISED),
    Case("sent, answer cut short", errors.Truncated("x"),
         C.UNAVAILABLE, "RESPONSE_TRUNCATED", "unknown", SAME, PROMISED),
    *(Case(f"sent, HTTP {status}", unsigned(status),
           C.UNAVAILABLE, "UPSTREAM_HTTP_ERROR", "unknown", SAME, PROMISED)
      for status in (408, 500, 502, 503, 504, 599)),
    *(Case(f"sent, unsigned answer with HTTP {status}", unsigned(status, claimed),
           C.UNAVAILABLE, "RESPONSE_UNSIGNED", "unknown", SAME, PROMISED)
      for status, claimed in ((200, ""), (200, "SUCCESS"), (200, "REQUEST_TRAFFIC_EXCEED_LIMIT"), (204, ""),
                              (200, "PROCESS_FAIL"))),
    *(Case(f"other HTTP {status}", unsigned(status),
           C.INTERNAL, "UPSTREAM_HTTP_ERROR", "unknown", OPERATOR)
      for status in (300, 301, 307, 400, 401, 403, 404, 405, 415, 499)),
    *(Case(f"an unsigned body that claims {code}, HTTP {status}", unsigned(status, code),
           C.INTERNAL, "RESPONSE_UNSIGNED", "unknown", OPERATOR)
      for code in SET_UP for status in (200, 401, 500)),
    Case("signature wrong", errors.SignatureInvalid("x"),
         C.INTERNAL, "RESPONSE_SIGNATURE_INVALID", "unknown", OPERATOR),
    Case("a signed answer that cannot be to this request", errors.Replayed("x"),
         C.INTERNAL, "RESPONSE_REPLAYED", "unknown", OPERATOR),
    Case("an earlier answer of the same connection again", errors.Repeated("x"),
         C.UNAVAILABLE, "RESPONSE_REPLAYED", "unknown", SAME, PROMISED),
    Case("signed, but malformed or not decryptable", errors.Malformed("x"),
         C.INTERNAL, "RESPONSE_MALFORMED", "unknown", OPERATOR),
    Case("signed, but plain where encryption is required", errors.NotEncrypted("x"),
         C.INTERNAL, "RESPONSE_NOT_ENCRYPTED", "unknown", OPERATOR),
    *(Case(f"signed {status or 'nothing'}, {code or 'no code'}", refused(status, code),
           C.UNAVAILABLE, "WALLET_RESULT_UNKNOWN", "unknown", SAME, PROMISED)
      for status in ("U", "", "s", "f", "FAIL") for code in ("", "UNKNOWN_EXCEPTION", "INVALID_CLIENT")),
    *(Case(f"signed {status} REQUEST_TRAFFIC_EXCEED_LIMIT", refused(status, "REQUEST_TRAFFIC_EXCEED_LIMIT"),
           C.RESOURCE_EXHAUSTED, "WALLET_RATE_LIMITED", "unknown", SAME, PROMISED)
      for status in ("U", "F", "")),
    Case("HTTP 429", unsigned(429),
         C.RESOURCE_EXHAUSTED, "WALLET_RATE_LIMITED", "unknown", SAME, PROMISED),
    Case("signed F: PARAM_ILLEGAL", refused("F", "PARAM_ILLEGAL"),
         C.INVALID_ARGUMENT, "WALLET_REJECTED", "rejected", NEW),
    Case("signed F: USER_NOT_EXIST", refused("F", "USER_NOT_EXIST"),
         C.NOT_FOUND, "WALLET_REJECTED", "rejected", NEW),
    Case("signed F: PROCESS_FAIL", refused("F", "PROCESS_FAIL"),
         C.FAILED_PRECONDITION, "WALLET_REJECTED", "rejected", NEVER),
    *(Case(f"signed F: {code}, our set-up", refused("F", code),
           C.INTERNAL, "GATEWAY_REFUSED", "rejected", OPERATOR)
      for code in SET_UP),
    *(Case(f"signed F: {code}, known or not", refused("F", code),
           C.FAILED_PRECONDITION, "WALLET_REJECTED", "rejected", NEW)
      for code in (*DOCUMENTED, *UNDOCUMENTED)),
)

AFTER_A_DOUBT: Final = (
    *(Case(f"after a doubt, signed F: {code}, our set-up", refused("F", code),
           C.INTERNAL, "GATEWAY_REFUSED", "unknown", OPERATOR, in_doubt=True)
      for code in SET_UP),
    *(Case(f"after a doubt, signed F: {code}, which no table knows", refused("F", code),
           C.FAILED_PRECONDITION, "WALLET_REJECTED", "unknown", OPERATOR, in_doubt=True)
      for code in UNDOCUMENTED),
    *(Case(f"after a doubt, signed F: {code}, which is known", refused("F", code),
           C.FAILED_PRECONDITION, "WALLET_REJECTED", "rejected", NEW, in_doubt=True)
      for code in DOCUMENTED),
    Case("after a doubt, signed F: PARAM_ILLEGAL", refused("F", "PARAM_ILLEGAL"),
         C.INVALID_ARGUMENT, "WALLET_REJECTED", "rejected", NEW, in_doubt=True),
    Case("after a doubt, signed F: USER_NOT_EXIST", refused("F", "USER_NOT_EXIST"),
         C.NOT_FOUND, "WALLET_REJECTED", "rejected", NEW, in_doubt=True),
    Case("after a doubt, signed F: PROCESS_FAIL", refused("F", "PROCESS_FAIL"),
         C.FAILED_PRECONDITION, "WALLET_REJECTED", "rejected", NEVER, in_doubt=True),
    *(replace(row, what=f"after a doubt, {row.what}", in_doubt=True)
      for row in ROWS if row.outcome == "unknown"),
    *(replace(row, what=f"after a doubt, {row.what}", outcome="unknown", in_doubt=True)
      for row in ROWS if row.outcome == "not_sent"),
)
"""The same rows after an earlier attempt that may have taken effect: not_sent becomes unknown."""
# fmt: on

TABLE: Final = (*ROWS, *AFTER_A_DOUBT)

BY_WHAT_IS_KNOWN: Final = {"GATEWAY_BUG"}
"""Tested separately below: its outcome depends on whether the request was sent."""

NAMES: Final = {
    name.removeprefix("ERROR_REASON_") for name, number in reasons.ErrorReason.items() if number
}

UNSAFE: Final = [case for case in TABLE if case.outcome == "unknown" and case.known().sent]
"""The rows of requests that were sent and may have taken effect."""


def reported(verdict: Verdict) -> tuple[StatusCode, str, str, str]:
    return verdict.code, verdict.reason_name, str(verdict.outcome), str(verdict.retry)


@pytest.mark.parametrize("idempotent", [True, False], ids=["promised", "not promised"])
@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.what)
def test_every_row_has_the_verdict_of_the_contract(case: Case, idempotent: bool) -> None:
    verdict = verdict_of(case.error, case.known(idempotent=idempotent), ResultCodes())
    assert reported(verdict) == case.reported(idempotent=idempotent)


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.what)
def test_row_is_the_same_for_both_rpcs(case: Case) -> None:
    verdicts = [
        verdict_of(case.error, case.known(api=api), ResultCodes()) for api in ("SyncLinkage", "BindAccount")
    ]
    assert reported(verdicts[0]) == reported(verdicts[1])


def test_every_reason_has_a_row() -> None:
    assert {case.reason for case in TABLE} | BY_WHAT_IS_KNOWN == NAMES


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.what)
def test_nothing_is_not_sent_after_a_doubt(case: Case) -> None:
    circumstances = case.known()._replace(in_doubt=True)
    assert verdict_of(case.error, circumstances, ResultCodes()).outcome != "not_sent"


# -- a retried call: its caller never saw the earlier attempts

ROWS_NOT_SENT: Final = [case for case in ROWS if case.outcome == "not_sent"]
CANNOT_HAVE_BEEN_SENT: Final = {"INVALID_REQUEST"}


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("case", ROWS_NOT_SENT, ids=lambda case: case.what)
def test_retried_call_without_a_look_up_is_unknown_instead_of_not_sent(
    case: Case, idempotent: bool
) -> None:
    circumstances = case.known(idempotent=idempotent)._replace(retried=True)
    verdict = verdict_of(case.error, circumstances, ResultCodes())
    outcome = "not_sent" if case.reason in CANNOT_HAVE_BEEN_SENT else "unknown"
    assert reported(verdict) == replace(case, outcome=outcome).reported(idempotent=idempotent)
    end = "Nothing was sent." if outcome == "not_sent" else "An earlier attempt may have taken effect."
    assert verdict.sentence.endswith(end)


@pytest.mark.parametrize(("retried", "looked_up"), [(True, True), (False, False)])
@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.what)
def test_call_depends_on_the_look_up_only_if_it_is_retried(
    case: Case, retried: bool, looked_up: bool
) -> None:
    circumstances = case.known()._replace(retried=retried, looked_up=looked_up)
    assert reported(verdict_of(case.error, circumstances, ResultCodes())) == case.reported(idempotent=True)


@pytest.mark.parametrize(
    "case", [case for case in AFTER_A_DOUBT if "F:" in case.what], ids=lambda case: case.what
)
def test_rejection_of_a_retried_call_is_judged_as_after_a_doubt(case: Case) -> None:
    circumstances = case.known()._replace(in_doubt=False, retried=True)
    assert reported(verdict_of(case.error, circumstances, ResultCodes())) == case.reported(idempotent=True)


def test_replayed_rejection_is_the_same_for_a_retried_call() -> None:
    circumstances = known(replayed=True, retried=True)
    verdict = verdict_of(refused("F", "A_CODE_THAT_NO_TABLE_KNOWS"), circumstances, ResultCodes())
    assert reported(verdict) == (C.FAILED_PRECONDITION, "WALLET_REJECTED", "rejected", NEW)


@pytest.mark.parametrize("looked_up", [True, False])
def test_unhandled_exception_before_a_look_up_is_unknown_for_a_retried_call(looked_up: bool) -> None:
    verdict = verdict_of(_Bug("x"), known(retried=True, looked_up=looked_up), ResultCodes())
    assert verdict.outcome == ("not_sent" if looked_up else "unknown")


def test_every_reason_with_a_row_has_one_constant_sentence() -> None:
    named = {reasons.ErrorReason.Name(reason).removeprefix("ERROR_REASON_") for reason in SENTENCES}
    assert {case.reason for case in TABLE} | BY_WHAT_IS_KNOWN <= named
    assert len(set(SENTENCES.values())) == len(SENTENCES)
    for sentence in SENTENCES.values():
        assert sentence.isascii()
        assert sentence.isprintable()
        assert sentence.endswith(".")
        assert not {"%", "{", "}"} & set(sentence)


def test_sentence_is_a_constant_without_values() -> None:
    tree = ast.parse(Path(inspect.getfile(sentences)).read_text("utf-8"))
    (table,) = (node for node in ast.walk(tree) if isinstance(node, ast.Dict))
    assert all(isinstance(value, ast.Constant) and isinstance(value.value, str) for value in table.values)


def test_answer_outside_the_window_is_reported_with_its_skew() -> None:
    verdict = verdict_of(errors.OutsideWindow(-3600.4), known(sent=(True,)), ResultCodes())
    assert reported(verdict) == (C.INTERNAL, "RESPONSE_REPLAYED", "unknown", OPERATOR)
    assert verdict.facts["clock_skew_s"] == "-3600"
    assert "clock_skew_s" not in verdict_of(errors.Replayed("x"), known(), ResultCodes()).facts


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.what)
def test_sentence_agrees_with_the_outcome(case: Case) -> None:
    sentence = verdict_of(case.error, case.known(), ResultCodes()).sentence
    expected = {
        "not_sent": ("Nothing was sent.",),
        "rejected": ("no effect.",),
        "unknown": ("may have taken effect.", "may take effect.", "Nothing more was sent."),
    }
    assert sentence.endswith(expected[case.outcome])
    assert case.outcome == "unknown" or "may have" not in sentence


@pytest.mark.parametrize("case", UNSAFE, ids=lambda case: case.what)
def test_nothing_unsafe_to_repeat_is_unavailable(case: Case) -> None:
    verdict = verdict_of(case.error, case.known(idempotent=False), ResultCodes())
    assert verdict.code is not StatusCode.UNAVAILABLE
    assert verdict.retry == "operator"


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.what)
def test_unavailable_and_unknown_allow_a_retry_only_of_the_same_request(
    case: Case, idempotent: bool
) -> None:
    verdict = verdict_of(case.error, case.known(idempotent=idempotent), ResultCodes())
    if verdict.code is StatusCode.UNAVAILABLE and verdict.reason_name != "UPSTREAM_TLS_INVALID":
        assert verdict.retry == "same_request_id"
    if verdict.code in {StatusCode.UNKNOWN, StatusCode.INTERNAL}:
        assert verdict.retry == "operator"


# -- every failure has a row


def kinds(parent: type[errors.CallError]) -> Iterator[type[errors.CallError]]:
    for child in parent.__subclasses__():
        yield child
        yield from kinds(child)


NEVER_RAISED: Final = {errors.NotSent, errors.NoAnswer, errors.AnswerError}
"""Base classes: only their subclasses are raised."""


def test_every_failure_of_the_client_has_a_row() -> None:
    results = {errors.ResultError, ResolvedAsRejected}
    assert set(kinds(errors.CallError)) - NEVER_RAISED == {*FAILURES, errors.Unsigned, *results}


@pytest.mark.parametrize("kind", FAILURES, ids=lambda kind: kind.__name__)
def test_failure_is_sent_unless_its_row_is_not_sent(kind: type[errors.CallError]) -> None:
    assert kind.sent is (FAILURES[kind].outcome != "not_sent")


def reasons_in_the_code() -> Iterator[str]:
    """Yield every reason in the code outside the tables, except in comparisons."""
    root = Path(inspect.getfile(service)).parent
    for path in root.rglob("*.py"):
        if path.name not in {"table.py", "sentences.py", "verdict.py"}:
            tree = ast.parse(path.read_text("utf-8"))
            compared = {
                id(side)
                for node in ast.walk(tree)
                if isinstance(node, ast.Compare)
                for side in node.comparators
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and id(node) not in compared:
                    yield from [node.attr] * node.attr.startswith("ERROR_REASON_")


def test_every_refusal_that_the_code_raises_has_a_row() -> None:
    rows = {reasons.ErrorReason.Name(reason) for reason in REFUSALS}
    assert set(reasons_in_the_code()) == rows


# -- an unhandled exception


class _Bug(Exception):
    """An exception whose text must stay secret."""


@pytest.mark.parametrize(
    ("sent", "outcome"),
    [
        ((), "not_sent"),
        ((False,), "not_sent"),
        ((False, False), "not_sent"),
        ((True,), "unknown"),
        ((True, False), "unknown"),
        ((False, True), "unknown"),
    ],
)
@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize(
    "error", [_Bug("SECRET"), KeyError("SECRET"), TimeoutError("SECRET"), OSError("SECRET")]
)
def test_unhandled_exception_is_unknown_only_if_the_request_was_sent(
    sent: tuple[bool, ...], outcome: str, idempotent: bool, error: Exception
) -> None:
    verdict = verdict_of(error, known(sent=sent, idempotent=idempotent), ResultCodes())
    assert reported(verdict) == (StatusCode.INTERNAL, "GATEWAY_BUG", outcome, "operator")
    assert "SECRET" not in repr(verdict)


@pytest.mark.parametrize("circumstances", [known(in_doubt=True), known(replayed=True)])
def test_unhandled_exception_is_unknown_after_an_earlier_attempt(circumstances: Circumstances) -> None:
    verdict = verdict_of(_Bug("SECRET"), circumstances, ResultCodes())
    assert reported(verdict) == (StatusCode.INTERNAL, "GATEWAY_BUG", "unknown", "operator")


def test_error_id_is_opaque_and_unique() -> None:
    ids = {verdict_of(_Bug("x"), known(), ResultCodes()).facts["error_id"] for _ in range(100)}
    assert len(ids) == 100
    assert all(len(error_id) == 16 and int(error_id, 16) >= 0 for error_id in ids)


def test_no_other_row_has_an_error_id() -> None:
    for case in TABLE:
        assert "error_id" not in verdict_of(case.error, case.known(), ResultCodes()).facts


# -- facts


def with_answer(error: errors.AnswerError, http_status: int = 200, tracer_id: str = "t-1") -> Exception:
    error.http_status, error.tracer_id = http_status, tracer_id
    return error


FACTS: Final[dict[str, tuple[Exception, tuple[bool, ...], dict[str, str]]]] = {
    "nothing is known before an attempt": (refusal("OVERLOADED"), (), {}),
    "attempts that were made are counted, sent or not": (
        errors.Unreachable("x"),
        (True, False),
        {"attempts": "2"},
    ),
    "a verified result is told whole": (
        refused("F", "PARAM_ILLEGAL", "參數"),
        (True,),
        {
            "attempts": "1",
            "result_status": "F",
            "result_code": "PARAM_ILLEGAL",
            "result_message": "參數",
            "tracer_id": "tracer-1",
            "http_status": "200",
        },
    ),
    "what a result leaves out is left out": (
        refused("U"),
        (True,),
        {"attempts": "1", "result_status": "U", "tracer_id": "tracer-1", "http_status": "200"},
    ),
    "an unsigned code is told as unverified": (
        with_answer(unsigned(503, "SYSTEM_ERROR"), 503),
        (True,),
        {
            "attempts": "1",
            "http_status": "503",
            "tracer_id": "t-1",
            "unverified_result_code": "SYSTEM_ERROR",
        },
    ),
    "an answer whose signature is wrong tells its HTTP status alone": (
        with_answer(errors.SignatureInvalid("x"), 200, ""),
        (True,),
        {"attempts": "1", "http_status": "200"},
    ),
    "no answer tells nothing": (errors.ConnectionLost("x"), (True,), {"attempts": "1"}),
}


@pytest.mark.parametrize(("error", "sent", "facts"), FACTS.values(), ids=FACTS.keys())
def test_known_facts_are_in_the_verdict(
    error: Exception, sent: tuple[bool, ...], facts: dict[str, str]
) -> None:
    assert verdict_of(error, known(sent=sent), ResultCodes()).facts == facts


def test_replayed_verdict_has_all_facts_and_replayed() -> None:
    first, again = (
        verdict_of(refused("F", "PARAM_ILLEGAL"), circumstances, ResultCodes())
        for circumstances in (known(sent=(True,)), known(replayed=True))
    )
    assert reported(first) == reported(again)
    assert {**again.facts, "attempts": "1"} == {**first.facts, "replayed": "true"}


def test_only_a_refusal_has_violations() -> None:
    found = (Violation("user_id", "is required"), Violation("biz_time", "is required"))
    error = Refusal(reasons.ERROR_REASON_INVALID_REQUEST, found)
    assert verdict_of(error, known(), ResultCodes()).violations == found
    assert all(not verdict_of(case.error, known(), ResultCodes()).violations for case in TABLE)


@pytest.mark.parametrize(
    ("retry_after_s", "wait_s"),
    [
        (0.0, RETRY_AFTER_S),
        (1.0, 1.0),
        (7.0, 7.0),
        (300.0, 300.0),
        (301.0, RETRY_AFTER_MAX_S),
        (999_999.0, 300.0),
    ],
)
@pytest.mark.parametrize("http_status", [200, 429, 503])
def test_retry_after_of_a_response_is_used_within_a_bound(
    http_status: int, retry_after_s: float, wait_s: float
) -> None:
    error = unsigned(http_status, retry_after_s=retry_after_s)
    assert verdict_of(error, known(), ResultCodes()).retry_after_s == wait_s


# -- result codes, built in and in RESULT_CODES_FILE


MORE: Final = ResultCodes({"BindAccount": {"ALREADY_BOUND": C.ALREADY_EXISTS, "PROCESS_FAIL": C.NOT_FOUND}})

KNOWN: Final = partial(Meaning, known=True, never=False)
NOT_KNOWN: Final = Meaning(C.FAILED_PRECONDITION, known=False, never=False)
MEANINGS: Final = {
    "a new code of this RPC": ("BindAccount", "ALREADY_BOUND", KNOWN(C.ALREADY_EXISTS)),
    "the same code of the other RPC is not known": ("SyncLinkage", "ALREADY_BOUND", NOT_KNOWN),
    "a new gRPC code for a code that is never retried": (
        "BindAccount", "PROCESS_FAIL", KNOWN(C.NOT_FOUND, never=True)),
    "a documented code of the other RPC stays": ("SyncLinkage", "USER_NOT_EXIST", KNOWN(C.NOT_FOUND)),
    "an empty code is not known": ("SyncLinkage", "", NOT_KNOWN),
}  # fmt: skip


@pytest.mark.parametrize(("api", "code", "meaning"), MEANINGS.values(), ids=MEANINGS.keys())
def test_more_result_codes_are_looked_up_per_rpc(api: str, code: str, meaning: Meaning) -> None:
    assert MORE.meaning_of(api, code) == meaning
    verdict = verdict_of(refused("F", code), known(api=api), MORE)
    assert verdict.code is meaning.code
    assert verdict.reason_name == "WALLET_REJECTED"


def test_more_result_codes_never_decide_over_the_status() -> None:
    verdict = verdict_of(refused("U", "ALREADY_BOUND"), known(api="BindAccount"), MORE)
    assert verdict.reason_name == "WALLET_RESULT_UNKNOWN"
