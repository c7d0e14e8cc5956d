"""LinkageError from the errors of gRPC. Unreadable details give `unknown`, and never another exception."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from alipayhk_linkage import LinkageError, Outcome, Retry, Violation
from alipayhk_linkage.hints import hints


@dataclass
class Failure:
    """An error like those of gRPC."""

    trailers: Any = ()
    status_code: StatusCode = StatusCode.UNAVAILABLE
    text: str | None = "a sentence"

    def code(self) -> StatusCode:
        return self.status_code

    def details(self) -> str | None:
        return self.text

    def trailing_metadata(self) -> object:
        return self.trailers


def carrying(*details: Any, **more: Any) -> Failure:
    status = Status()
    for detail in details:
        (packed := Packed()).Pack(detail)
        status.details.append(packed)
    return Failure((("x-other", "1"), ("grpc-status-details-bin", status.SerializeToString())), **more)


def info(**metadata: str) -> ErrorInfo:
    return ErrorInfo(domain="linkage.alipayhk", reason="WALLET_REJECTED", metadata=metadata)


def test_all_details_of_a_status_are_read() -> None:
    wait = RetryInfo()
    wait.retry_delay.FromMilliseconds(1500)
    bad = BadRequest()
    bad.field_violations.add(field="user_id", description="is required")
    failure = carrying(
        info(outcome="not_sent", retry="same_request_id", attempts="2"),
        wait,
        RequestInfo(request_id="loyalty-1"),
        bad,
    )
    error = LinkageError.of(failure)
    assert (error.code, error.sentence) == (StatusCode.UNAVAILABLE, "a sentence")
    assert (error.outcome, error.reason, error.retry) == ("not_sent", "WALLET_REJECTED", "same_request_id")
    assert (error.retry_after_s, error.request_id) == (1.5, "loyalty-1")
    assert error.metadata["attempts"] == "2"
    assert error.violations == (Violation("user_id", "is required"),)
    reported = "UNAVAILABLE WALLET_REJECTED: a sentence (outcome: not_sent, retry: same_request_id)"
    assert str(error) == reported


@pytest.mark.parametrize(
    "failure",
    [
        Failure(),
        Failure(None),
        Failure((("grpc-status-details-bin", b"\xff\xff"),)),
        Failure((("grpc-status-details-bin", b""),)),
        Failure(text=None),
        carrying(),
        carrying(RequestInfo(request_id="a")),
        carrying(ErrorInfo(domain="somebody.else", reason="X", metadata={"outcome": "rejected"})),
    ],
    ids=["bare", "none", "garbage", "empty", "no text", "no details", "no info", "foreign"],
)
def test_a_status_without_our_details_is_unknown(failure: Failure) -> None:
    error = LinkageError.of(failure)
    assert (error.outcome, error.reason) == (Outcome.UNKNOWN, "")
    assert error.retry == Retry.SAME_REQUEST_ID
    assert "The gateway did not report an outcome" in hints(error)


def test_two_error_infos_are_both_ignored() -> None:
    rejected = info(outcome="rejected", retry="never")
    error = LinkageError.of(carrying(rejected, info(outcome="not_sent", retry="new_request_id")))
    assert (error.outcome, error.reason, error.retry) == ("unknown", "", "same_request_id")
    foreign = ErrorInfo(domain="somebody.else", reason="X", metadata={"outcome": "unknown"})
    assert LinkageError.of(carrying(foreign, rejected)).outcome == "rejected"


def test_details_that_cannot_be_parsed_are_ignored() -> None:
    status = Status()
    status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    failure = Failure((("grpc-status-details-bin", status.SerializeToString()),))
    assert LinkageError.of(failure).outcome == "unknown"


def test_unknown_values_of_a_newer_gateway_become_unknown_and_operator() -> None:
    error = LinkageError.of(carrying(info(outcome="half_sent", retry="tomorrow")))
    assert (error.outcome, error.retry) == (Outcome.UNKNOWN, Retry.OPERATOR)
    error = LinkageError.of(carrying(info()))
    assert (error.outcome, error.retry) == (Outcome.UNKNOWN, Retry.OPERATOR)


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_copy_and_pickle_keep_all_attributes(copied: Callable[[LinkageError], LinkageError]) -> None:
    details = info(outcome="rejected", retry="never", attempts="2"), RequestInfo(request_id="loyalty-1")
    error = LinkageError.of(carrying(*details))
    again = copied(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_an_outcome(data: bytes) -> None:
    assert LinkageError.of(Failure((("grpc-status-details-bin", data),))).outcome in set(Outcome)


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("retry", Retry)
def test_every_outcome_and_retry_has_a_hint(outcome: Outcome, retry: Retry) -> None:
    error = LinkageError(StatusCode.INTERNAL, "", outcome=outcome, retry=retry, reason="X", retry_after_s=2)
    text = hints(error)
    assert text.endswith(", in 2 s.") is (retry is Retry.SAME_REQUEST_ID)
    assert "did not report" not in text
