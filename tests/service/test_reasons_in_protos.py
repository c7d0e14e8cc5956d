"""Compare the comments of error_reason.proto with the outcome table."""

from __future__ import annotations

import json
import re
import secrets
from functools import cache
from typing import Any, Final

import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc.error_details_pb2 import ErrorInfo

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.wire import errors
from service.outcomes.call import Circumstances
from service.outcomes.details import status_of
from service.outcomes.refusal import Refusal, skew_fact
from service.outcomes.result_codes import ResultCodes
from service.outcomes.table import verdict_of
from tests.service.fakes import known, refused
from tests.service.test_outcome_table import NAMES, ROWS, TABLE, reported, unsigned, with_answer
from tests.test_protos import value_comments

STATED: Final = re.compile(r"\bCode (\w+), outcome (\w+), retry (\w+)")
EXAMPLE: Final = re.compile(r'\{"reason": .*\}\}$')
ERROR_ID: Final = "0123456789abcdef"
BUG: Final = RuntimeError("a bug")
REUSED: Final = Refusal(reasons.ERROR_REASON_REQUEST_ID_REUSED, retry_by_operator=True)
ONCE: Final = known(sent=(True,))


@cache
def commented() -> dict[str, str]:
    """Return the comment of each reason, on one line."""
    prefix = "ErrorReason.ERROR_REASON_"
    return {
        name.removeprefix(prefix): comment
        for name, number, comment in value_comments()
        if name.startswith(prefix) and number
    }


@cache
def occurring() -> dict[str, set[tuple[str, ...]]]:
    """Return each reason's combinations of code, outcome and retry.

    Left out are rows whose outcome changes from not_sent to unknown after a doubt: the enum's own comment
    states that rule for all reasons.
    """
    not_sent = {row.reason for row in ROWS if row.outcome == "not_sent"}
    cases: list[tuple[Exception, Circumstances]] = [(REUSED, known()), (BUG, known()), (BUG, ONCE)]
    for case in TABLE:
        if not (case.in_doubt and case.reason in not_sent):
            cases += [(case.error, case.known(idempotent=idempotent)) for idempotent in (True, False)]
    found: dict[str, set[tuple[str, ...]]] = {name: set() for name in NAMES}
    for error, circumstances in cases:
        code, reason, outcome, retry = reported(verdict_of(error, circumstances, ResultCodes()))
        found[reason].add((code.name, outcome, retry))
    return found


EXAMPLES: Final[dict[str, tuple[Exception, Circumstances]]] = {
    "CALLER_UNAUTHENTICATED": (
        Refusal(
            reasons.ERROR_REASON_CALLER_UNAUTHENTICATED, facts={"caller_names": "URI:spiffe://corp/reports"}
        ),
        known(),
    ),
    "UPSTREAM_UNREACHABLE": (errors.Unreachable("x"), known(sent=(False, False))),
    "UPSTREAM_TLS_INVALID": (errors.TlsInvalid("x"), known(sent=(False,))),
    "BIZ_TIME_IN_FUTURE": (
        Refusal(reasons.ERROR_REASON_BIZ_TIME_IN_FUTURE, facts=skew_fact(600)),
        known(),
    ),
    "UPSTREAM_HTTP_ERROR": (unsigned(502), ONCE),
    "RESPONSE_UNSIGNED": (unsigned(200, "INVALID_SIGNATURE"), ONCE),
    "RESPONSE_SIGNATURE_INVALID": (with_answer(errors.SignatureInvalid("x"), tracer_id=""), ONCE),
    "RESPONSE_REPLAYED": (with_answer(errors.OutsideWindow(-3600), tracer_id="tracer-1"), ONCE),
    "RESPONSE_MALFORMED": (with_answer(errors.Malformed("x"), tracer_id="tracer-1"), ONCE),
    "RESPONSE_NOT_ENCRYPTED": (with_answer(errors.NotEncrypted("x"), tracer_id="tracer-1"), ONCE),
    "WALLET_RESULT_UNKNOWN": (refused("U", "UNKNOWN_EXCEPTION", "Try later."), ONCE),
    "WALLET_RATE_LIMITED": (unsigned(429), ONCE),
    "WALLET_REJECTED": (refused("F", "USER_NOT_EXIST", "No such user."), ONCE),
    "GATEWAY_REFUSED": (refused("F", "INVALID_SIGNATURE"), ONCE),
    "GATEWAY_BUG": (BUG, ONCE),
}
"""The errors that the proto's examples show; for every other reason the first row of the table."""


def example(reason: str) -> tuple[Exception, Circumstances]:
    """Return the error that the proto's example shows, and what is known of its call."""
    if reason in EXAMPLES:
        return EXAMPLES[reason]
    row = next(row for row in ROWS if row.reason == reason)
    return row.error, row.known()


@pytest.mark.parametrize("reason", sorted(NAMES))
def test_proto_lists_every_combination_that_the_table_gives_a_reason(reason: str) -> None:
    stated = STATED.findall(commented()[reason])
    assert len(stated) == len(set(stated))
    assert set(stated) == occurring()[reason]


@pytest.mark.parametrize("reason", sorted(NAMES))
def test_example_in_the_proto_is_the_error_info_that_a_caller_gets(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: ERROR_ID)
    status = status_of(verdict_of(*example(reason), ResultCodes()), "req-1")
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    (text,) = EXAMPLE.findall(commented()[reason])
    shown: dict[str, Any] = json.loads(text)
    assert shown == MessageToDict(info)
