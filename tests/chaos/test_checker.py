"""The chaos checker finds every kind of planted fault, and none in a correct history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from service.ledger import State
from tests.chaos.checker import INVARIANTS, check, counts, explain
from tests.chaos.history import (
    BIND,
    SYNC,
    Arrival,
    Call,
    FaultWindow,
    History,
    Key,
    Request,
    Resolution,
    Row,
    Snapshot,
)

OLDER, NEWER, REFUSED, BOUND, DOUBTED = (
    (SYNC, "older"),
    (SYNC, "newer"),
    (SYNC, "refused"),
    (BIND, "bound"),
    (BIND, "doubted"),
)


def correct() -> History:
    """Return a correct history: each request was sent once, and its caller knows the outcome."""
    history = History(linkages={"member": 2})
    for request in (
        Request(OLDER, "older content", "member", 1),
        Request(NEWER, "newer content", "member", 2),
        Request(REFUSED, "refused content", "other", 3, refused_with="USER_NOT_EXIST"),
        Request(BOUND, "bound content", account="1"),
        Request(DOUBTED, "doubted content", account="2"),
    ):
        history.requests[request.key] = request
    for number, (key, status, code) in enumerate(
        (
            (OLDER, "S", "SUCCESS"),
            (NEWER, "S", "SUCCESS"),
            (REFUSED, "F", "USER_NOT_EXIST"),
            (BOUND, "S", "0000"),
        )
    ):
        request, started = history.requests[key], 10.0 * number
        history.calls.append(
            Call(
                key=key,
                content=request.content,
                gateway="a",
                started=started,
                ended=started + 2,
                outcome="OK" if status == "S" else "rejected",
                status=status,
                result_code=code,
                tracer="" if key[0] == BIND else f"t{number}",
                account=request.account,
            )
        )
        sent = Arrival(key, request.content, started + 1, process=11, answer="whole")
        history.arrivals.append(replace(sent, status=status, result_code=code, tracer=f"t{number}"))
    doubted = Call(DOUBTED, "doubted content", "a", 50, 52, retry="operator", reason="OUTCOME_IN_DOUBT")
    history.calls.append(doubted)
    history.calls.append(replace(doubted, started=60, ended=61, outcome="rejected", resolved=True))
    history.resolutions.append(Resolution(DOUBTED, "rejected", 55))
    states = dict.fromkeys((OLDER, NEWER, BOUND), State.APPLIED) | dict.fromkeys(
        (REFUSED, DOUBTED), State.REJECTED
    )
    rows = {key: Row(state, attempts=1, is_in_doubt=False) for key, state in states.items()}
    history.snapshot = Snapshot(100, rows, processes=frozenset({11}))
    return history


def set_row(history: History, key: Key, row: Row | None) -> None:
    assert history.snapshot is not None
    if row is None:
        del history.snapshot.rows[key]
    else:
        history.snapshot.rows[key] = row


def call_of(history: History, key: tuple[str, str]) -> Call:
    return next(call for call in history.calls if call.key == key)


def arrival_of(history: History, key: tuple[str, str]) -> Arrival:
    return next(arrival for arrival in history.arrivals if arrival.key == key)


def ok_for_other_content(history: History) -> None:
    arrival_of(history, OLDER).content = "changed content"


def rejected_but_applied(history: History) -> None:
    arrival_of(history, REFUSED).status = "S"


def resolved_but_applied(history: History) -> None:
    history.arrivals.append(Arrival(DOUBTED, "doubted content", 54.0, status="S"))


def not_sent_but_sent(history: History) -> None:
    call = call_of(history, BOUND)
    call.outcome, call.reason = "not_sent", "UPSTREAM_UNREACHABLE"


def not_sent_and_sent_later(history: History) -> None:
    not_sent_but_sent(history)
    arrival_of(history, BOUND).at += 5


def ok_but_never_received(history: History) -> None:
    history.arrivals.remove(arrival_of(history, NEWER))


def outcome_forgotten(history: History) -> None:
    call = call_of(history, BOUND)
    later = replace(call, started=call.ended + 1, ended=call.ended + 2)
    later.outcome, later.reason, later.retry = "unknown", "OUTCOME_IN_DOUBT", "operator"
    history.calls.append(later)


def bound_twice(history: History) -> None:
    arrival = arrival_of(history, BOUND)
    history.arrivals.append(replace(arrival, at=arrival.at + 0.5))


def other_content_sent(history: History) -> None:
    arrival = arrival_of(history, OLDER)
    history.arrivals.append(replace(arrival, content="other content", at=arrival.at + 0.5))


def sent_after_resolution(history: History) -> None:
    history.arrivals.append(Arrival(DOUBTED, "doubted content", 55.6, process=12, status="F"))


def sent_after_report(history: History) -> None:
    arrival = arrival_of(history, OLDER)
    history.arrivals.append(replace(arrival, at=arrival.at + 5))


def two_processes_at_the_same_time(history: History) -> None:
    arrival_of(history, OLDER).concurrent_with = 12


def result_of_another(history: History) -> None:
    call_of(history, OLDER).tracer = "t1"


def account_of_another(history: History) -> None:
    call_of(history, BOUND).account = "2"


def code_of_another(history: History) -> None:
    call_of(history, REFUSED).result_code = "PROCESS_FAIL"


def ok_for_refused(history: History) -> None:
    call = call_of(history, REFUSED)
    call.outcome, call.status = "OK", "S"


def reused_without_reuse(history: History) -> None:
    call = call_of(history, OLDER)
    call.outcome, call.reason, call.retry = "not_sent", "REQUEST_ID_REUSED", "operator"


def older_state_at_the_end(history: History) -> None:
    history.linkages["member"] = 1


def stale_without_newer(history: History) -> None:
    call = call_of(history, OLDER)
    call.outcome, call.reason, call.retry = "not_sent", "STALE_BIZ_TIME", "never"
    call.ended = 0.5


def stale_request_sent(history: History) -> None:
    for record in (call_of(history, OLDER), arrival_of(history, OLDER)):
        for name in ("started", "ended", "at"):
            if hasattr(record, name):
                setattr(record, name, getattr(record, name) + 40)


def outcome_never_reported(history: History) -> None:
    call = call_of(history, OLDER)
    call.outcome = "unknown"


def row_missing(history: History) -> None:
    set_row(history, BOUND, None)


def row_applied_but_never_received(history: History) -> None:
    set_row(history, DOUBTED, Row(State.APPLIED, attempts=1, is_in_doubt=False))


def row_rejected_but_applied(history: History) -> None:
    set_row(history, BOUND, Row(State.REJECTED, attempts=1, is_in_doubt=False))


def row_with_a_short_lease(history: History) -> None:
    set_row(history, BOUND, Row(State.SENDING, attempts=1, is_in_doubt=False, lease_s=1.5))


def row_overwritten(history: History) -> None:
    set_row(history, DOUBTED, Row(State.REJECTED, attempts=1, is_in_doubt=False, is_overwritten=True))


def resolved_twice(history: History) -> None:
    history.resolutions.append(replace(history.resolutions[0], at=57))


def row_open_after_report(history: History) -> None:
    set_row(history, BOUND, Row(State.IN_DOUBT, attempts=1, is_in_doubt=True))


def row_left_sending(history: History) -> None:
    """A lock of the ledger excuses an outcome that a killed process could not record; this one runs."""
    call = call_of(history, BOUND)
    history.faults.append(FaultWindow("lock", "ledger.db", call.started, call.ended))
    set_row(history, BOUND, Row(State.SENDING, attempts=1, is_in_doubt=True))


PLANTED: dict[Callable[[History], None], str] = {
    ok_for_other_content: "false outcome",
    rejected_but_applied: "false outcome",
    resolved_but_applied: "false outcome",
    not_sent_but_sent: "false outcome",
    not_sent_and_sent_later: "false outcome",
    ok_but_never_received: "lost",
    outcome_forgotten: "lost",
    bound_twice: "doubled",
    other_content_sent: "changed",
    sent_after_resolution: "sent after",
    sent_after_report: "sent after",
    two_processes_at_the_same_time: "concurrent",
    result_of_another: "wrong result",
    account_of_another: "wrong result",
    code_of_another: "wrong result",
    ok_for_refused: "wrong result",
    reused_without_reuse: "wrong result",
    older_state_at_the_end: "order",
    stale_without_newer: "order",
    stale_request_sent: "order",
    outcome_never_reported: "no outcome",
    row_missing: "ledger",
    row_applied_but_never_received: "ledger",
    row_rejected_but_applied: "ledger",
    row_open_after_report: "ledger",
    row_left_sending: "ledger",
    row_with_a_short_lease: "ledger",
    row_overwritten: "ledger",
    resolved_twice: "lost",
}


def test_a_correct_history_breaks_nothing() -> None:
    assert check(correct()) == []


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(plant: Callable[[History], None]) -> None:
    history = correct()
    plant(history)
    assert PLANTED[plant] in {finding.invariant for finding in check(history)}


def test_every_invariant_has_a_planted_fault() -> None:
    assert {invariant.name for invariant in INVARIANTS} == set(PLANTED.values())


def test_a_request_is_counted_once_for_each_invariant() -> None:
    history = correct()
    bound_twice(history)
    sent_after_report(history)
    found = counts(check(history))
    assert (found["doubled"], found["sent after"], found["lost"]) == (1, 1, 0)


def test_an_outcome_may_be_forgotten_if_the_ledger_could_not_record_it() -> None:
    """AlipayHK's answer is reported while the ledger is locked. After a crash the row is in doubt."""
    history = correct()
    outcome_forgotten(history)
    started = call_of(history, BOUND).started
    history.faults.append(FaultWindow("lock", "ledger.db", started + 0.5, started + 2))
    assert check(history) == []


def test_a_killed_process_may_leave_a_row_that_it_could_not_record() -> None:
    history = correct()
    row_left_sending(history)
    assert history.snapshot is not None
    history.snapshot = replace(history.snapshot, processes=frozenset())
    assert check(history) == []


def test_an_attempt_that_sent_nothing_is_no_attempt_of_the_process_that_sent_before() -> None:
    history = correct()
    row_left_sending(history)
    set_row(history, BOUND, Row(State.SENDING, attempts=2, is_in_doubt=True))
    assert check(history) == []


def test_a_request_without_an_outcome_is_a_finding_only_at_the_end() -> None:
    history = correct()
    outcome_never_reported(history)
    assert check(history)
    assert check(history, ended=False) == []


def test_a_not_sent_call_may_follow_a_sent_call() -> None:
    history = correct()
    first = call_of(history, OLDER)
    first.outcome, first.reason = "unknown", "UPSTREAM_TIMEOUT"
    again = replace(
        first, started=first.ended, ended=first.ended + 1, outcome="not_sent", reason="OVERLOADED"
    )
    history.calls += [again, replace(again, started=again.ended, ended=again.ended + 1, outcome="OK")]
    assert check(history) == []


def test_the_timeline_of_a_request_names_its_calls_arrivals_and_faults() -> None:
    history = correct()
    history.faults.append(FaultWindow("kill", "gateway a", 30.5, 31.5))
    history.faults.append(FaultWindow("kill", "gateway b", 0.5, 1.5))
    lines = [line for _, line in explain(history, BOUND)]
    assert [line.split()[0] for line in lines] == ["call", "fault", "received", "call"]
    assert "gateway a" in lines[1]


def test_a_lease_shortened_by_a_clock_jump_is_no_finding() -> None:
    history = correct()
    two_processes_at_the_same_time(history)
    jumped_at = arrival_of(history, OLDER).at - 1
    history.faults.append(FaultWindow("clock", "+600 s", jumped_at, jumped_at + 10))
    assert check(history) == []
    history.faults[-1] = FaultWindow("clock", "-600 s", jumped_at - 10, jumped_at)
    assert check(history) == []


def test_a_clock_that_is_set_back_shortens_no_lease() -> None:
    history = correct()
    two_processes_at_the_same_time(history)
    jumped_at = arrival_of(history, OLDER).at - 1
    history.faults.append(FaultWindow("clock", "-600 s", jumped_at, jumped_at + 10))
    assert check(history)
