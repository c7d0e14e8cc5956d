"""The details of a status: their kinds, their size, and when to retry."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from service.outcomes.details import status_of, trailers_of
from service.outcomes.refusal import Refusal, Violation
from service.outcomes.result_codes import ResultCodes
from service.outcomes.table import Outcome, Retry
from service.outcomes.verdict import Verdict, verdict_of
from tests.service.fakes import known, refused
from tests.service.test_outcome_table import TABLE, Case

SIX_KIB: Final = 6 * 1024
FOUR_BYTES: Final = "𠮷"
Detail = TypeVar("Detail", bound=Message)


def verdict(
    retry: Retry = Retry.NEW_REQUEST_ID,
    *,
    facts: dict[str, str] | None = None,
    violations: tuple[Violation, ...] = (),
    retry_after_s: float = 1.0,
) -> Verdict:
    return Verdict(
        StatusCode.INVALID_ARGUMENT,
        reasons.ERROR_REASON_INVALID_REQUEST,
        Outcome.NOT_SENT,
        retry,
        retry_after_s=retry_after_s,
        facts=facts or {},
        violations=violations,
    )


def details(status: Status, kind: type[Detail]) -> list[Detail]:
    found = []
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            found.append(detail)
    return found


def info(status: Status) -> Any:
    (only,) = details(status, ErrorInfo)
    return only


def many(count: int, *, description: str = "is required") -> tuple[Violation, ...]:
    return tuple(Violation(f"field_{number}", description) for number in range(count))


# -- kinds of details


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.what)
def test_every_row_has_exactly_the_details_of_its_kind(case: Case, idempotent: bool) -> None:
    reported = verdict_of(case.error, case.known(idempotent=idempotent), ResultCodes())
    status = Status.FromString(dict(trailers_of(reported, "req-1"))["grpc-status-details-bin"])
    code, reason, outcome, retry = case.reported(idempotent=idempotent)
    assert (status.code, status.message) == (code.value[0], reported.sentence)
    assert (info(status).domain, info(status).reason) == ("linkage.alipayhk", reason)
    assert (info(status).metadata["outcome"], info(status).metadata["retry"]) == (outcome, retry)
    assert [detail.request_id for detail in details(status, RequestInfo)] == ["req-1"]
    assert len(details(status, RetryInfo)) == (retry == "same_request_id")
    assert not details(status, BadRequest)
    assert len(status.details) == 2 + (retry == "same_request_id")


@pytest.mark.parametrize("retry", Retry)
def test_retry_info_is_present_exactly_for_same_request_id(retry: Retry) -> None:
    reported = verdict(retry, retry_after_s=2.5)
    status, pushback = status_of(reported, ""), dict(trailers_of(reported, ""))["grpc-retry-pushback-ms"]
    if retry is Retry.SAME_REQUEST_ID:
        (retry_info,) = details(status, RetryInfo)
        assert retry_info.retry_delay.ToMilliseconds() == 2500
        assert pushback == "2500"
    else:
        assert not details(status, RetryInfo)
        assert pushback == "-1"


PUSHBACKS: Final[list[tuple[float | None, bool, str]]] = [
    (None, False, "1000"),
    (60.0, False, "1000"),
    (1.5, False, "1000"),
    (1.4995, False, "-1"),
    (0.05, False, "-1"),
    (-0.01, False, "-1"),
    (None, True, "-1"),
    (60.0, True, "-1"),
]


@pytest.mark.parametrize(("left_s", "resends_ended", "pushback"), PUSHBACKS)
def test_grpc_retries_only_if_its_wait_fits_and_resends_did_not_end(
    left_s: float | None, resends_ended: bool, pushback: str
) -> None:
    reported = verdict(Retry.SAME_REQUEST_ID)
    trailers = dict(trailers_of(reported, "", left_s=left_s, resends_ended=resends_ended))
    assert trailers["grpc-retry-pushback-ms"] == pushback
    (retry_info,) = details(Status.FromString(trailers["grpc-status-details-bin"]), RetryInfo)
    assert retry_info.retry_delay.ToMilliseconds() == 1000


def test_shutting_down_asks_for_100_ms() -> None:
    reported = verdict_of(Refusal(reasons.ERROR_REASON_SHUTTING_DOWN), known(), ResultCodes())
    assert dict(trailers_of(reported, ""))["grpc-retry-pushback-ms"] == "100"


@pytest.mark.parametrize(("retry_after_s", "pushback"), [(1.0, "1000"), (0.0004, "0"), (300.0, "300000")])
def test_pushback_is_a_whole_number_of_milliseconds(retry_after_s: float, pushback: str) -> None:
    reported = verdict(Retry.SAME_REQUEST_ID, retry_after_s=retry_after_s)
    assert dict(trailers_of(reported, ""))["grpc-retry-pushback-ms"] == pushback


def test_invalid_request_id_is_not_in_the_details() -> None:
    assert not details(status_of(verdict(), ""), RequestInfo)


def test_status_without_violations_has_no_bad_request() -> None:
    assert not details(status_of(verdict(), "req-1"), BadRequest)


def test_every_violation_is_listed_in_order() -> None:
    violations = many(20)
    (bad_request,) = details(status_of(verdict(violations=violations), "req-1"), BadRequest)
    found = [(item.field, item.description) for item in bad_request.field_violations]
    assert found == [(violation.field, violation.description) for violation in violations]


# -- size


FACT_LIMITS: Final = {
    "result_message": 256,
    "result_code": 128,
    "result_status": 128,
    "tracer_id": 128,
    "unverified_result_code": 128,
}

WORST: Final[dict[str, Verdict]] = {
    "hundreds of violations": verdict(violations=many(999)),
    "violations that are long": verdict(violations=many(300, description=FOUR_BYTES * 300)),
    "one violation that is far too long": verdict(violations=many(1, description=FOUR_BYTES * 3000)),
    "every fact as long as may be, in four bytes a character": verdict(
        facts=dict.fromkeys((*FACT_LIMITS, "attempts", "http_status", "error_id"), FOUR_BYTES * 5000)
    ),
    "facts and violations": verdict(
        Retry.SAME_REQUEST_ID,
        facts={"result_message": FOUR_BYTES * 256, "result_code": FOUR_BYTES * 128, "tracer_id": "t" * 128},
        violations=many(999),
    ),
}


@pytest.mark.parametrize("reported", WORST.values(), ids=WORST.keys())
def test_details_are_under_six_kib(reported: Verdict) -> None:
    data = dict(trailers_of(reported, "r" * 128))["grpc-status-details-bin"]
    assert len(data) < SIX_KIB


@pytest.mark.parametrize("count", [*range(80, 180), 500, 5000])
def test_last_violation_counts_those_not_listed(count: int) -> None:
    status = status_of(verdict(violations=many(count, description="has control characters")), "r" * 128)
    assert status.ByteSize() < SIX_KIB
    (bad_request,) = details(status, BadRequest)
    *named, last = bad_request.field_violations
    if not last.field:
        assert last.description == f"{count - len(named)} more violations are not listed"
    else:
        assert len(named) + 1 == count
    assert [item.field for item in named] == [f"field_{number}" for number in range(len(named))]


def test_details_list_as_many_violations_as_fit() -> None:
    status = status_of(verdict(violations=many(999)), "req-1")
    assert status.ByteSize() > SIX_KIB - 256


@pytest.mark.parametrize(("name", "characters_max"), FACT_LIMITS.items())
@pytest.mark.parametrize("character", ["a", "語", FOUR_BYTES])
def test_fact_is_cut_at_its_limit_between_characters(
    name: str, characters_max: int, character: str
) -> None:
    for count in (characters_max - 1, characters_max, characters_max + 1):
        metadata = info(status_of(verdict(facts={name: character * count}), "")).metadata
        assert metadata[name] == character * min(count, characters_max)


def test_longest_result_of_alipayhk_is_cut_and_fits() -> None:
    error = refused("F" * 1000, FOUR_BYTES * 1000, FOUR_BYTES * 1000)
    reported = verdict_of(error, known(sent=(True,) * 99), ResultCodes())
    status = status_of(reported, "r" * 128)
    assert status.ByteSize() < SIX_KIB
    assert info(status).metadata["result_message"] == FOUR_BYTES * 256


# -- odd text


ODD: Final = {
    "NUL": "a\0b",
    "line breaks": "a\r\nb",
    "a byte order mark": "\ufeff",
    "a noncharacter": "\uffff",
    "the last code point": "\U0010ffff",
    "right to left": "\u202e",
    "a lone surrogate": "a\ud800b",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_odd_text_in_a_fact_does_not_break_the_details(text: str) -> None:
    status = status_of(verdict(facts={"result_message": text}), "req-1")
    assert Status.FromString(status.SerializeToString()) == status
    if text.isascii() or "\ud800" not in text:
        assert info(status).metadata["result_message"] == text


@given(
    facts=st.dictionaries(st.sampled_from(sorted(FACT_LIMITS)), st.text(max_size=400)),
    violations=st.lists(st.tuples(st.text(max_size=60), st.text(max_size=600)), max_size=40),
    retry=st.sampled_from(Retry),
    request_id=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=128),
)
def test_details_of_any_verdict_are_under_six_kib_and_readable(
    facts: dict[str, str], violations: list[tuple[str, str]], retry: Retry, request_id: str
) -> None:
    reported = verdict(retry, facts=facts, violations=tuple(Violation(*pair) for pair in violations))
    data = dict(trailers_of(reported, request_id))["grpc-status-details-bin"]
    assert isinstance(data, bytes)
    assert len(data) < SIX_KIB
    status = Status.FromString(data)
    assert info(status).reason == "INVALID_REQUEST"
    assert len(details(status, RetryInfo)) == (retry is Retry.SAME_REQUEST_ID)
    assert len(details(status, BadRequest)) == bool(violations)
