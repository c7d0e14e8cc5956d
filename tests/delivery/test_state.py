"""The states of a flight: legal transitions, what each state means at a deadline, and the diagram."""

from __future__ import annotations

import asyncio
import re
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from alipayhk.linkage.v1 import error_reason_pb2 as reasons
from clients.alipayhk.transport import Attempt
from clients.alipayhk.wire import errors
from service.delivery.flight import Flight
from service.delivery.ledger_wait import LedgerProgress
from service.delivery.state import REASON_AT_DEADLINE, TRANSITIONS, FlightState, diagram
from service.outcomes.refusal import Refusal
from service.outcomes.result_codes import ResultCodes
from service.outcomes.verdict import Failure, judged
from tests.delivery.world import LOST, OK, SLOW, UNREACHABLE, FaultyLedger, Make, Step, World, failing
from tests.service.fakes import LogStream

S: Final = FlightState
ARCHITECTURE: Final = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"


def flight_in(world: World, state: FlightState, *, sent: bool = False) -> Flight:
    flight = Flight(world.sync("a"), "")
    flight.entered = S.CONNECTING if state is S.AWAITING_ANSWER else state
    if state in {S.CONNECTING, S.AWAITING_ANSWER, S.BACKING_OFF, S.RECORDING}:
        flight.attempts.append(Attempt(sent=sent or state is S.AWAITING_ANSWER))
    return flight


@pytest.mark.parametrize(("old", "new"), list(product(S, S)))
def test_illegal_transition_is_logged_and_made(
    old: FlightState, new: FlightState, log_lines: LogStream
) -> None:
    flight = flight_in(World(), old)
    assert flight.state is old
    flight.enter(new)
    assert flight.entered is new
    lines = log_lines.of("illegal state transition")
    logged = [(line["level"], line["request_id"], line["where"]) for line in lines]
    assert logged == ([] if (old, new) in TRANSITIONS else [("error", "a", f"{old} -> {new}")])
    log_lines.truncate(0)
    log_lines.seek(0)


def test_every_state_is_reached_from_the_first_and_leads_to_the_last() -> None:
    assert {new for _, new in TRANSITIONS} == set(S) - {S.LOOKING_UP}
    assert {old for old, _ in TRANSITIONS} == set(S) - {S.FINISHED}


# -- the result for a caller whose deadline expires, in each state


def at_deadline(flight: Flight) -> object:
    """Return the reason of a refusal, or the class of a failure."""
    failure = flight.failure_now(LedgerProgress())
    return failure.reason if isinstance(failure, Refusal) else type(failure)


@pytest.mark.parametrize("state", REASON_AT_DEADLINE)
def test_flight_without_an_attempt_is_refused_by_its_state(world: World, state: FlightState) -> None:
    assert at_deadline(flight_in(world, state)) == REASON_AT_DEADLINE[state]


@pytest.mark.parametrize("state", [S.QUEUED_FOR_CAPACITY, S.CLAIMING, S.WAITING_FOR_OTHER])
async def test_flight_that_waited_for_another_keeps_that_reason(world: World, state: FlightState) -> None:
    flight = flight_in(world, S.QUEUED_FOR_LINKAGE)
    flight.blocked_by = reasons.ERROR_REASON_LINKAGE_BUSY
    flight.entered = state
    assert at_deadline(flight) == reasons.ERROR_REASON_LINKAGE_BUSY


@pytest.mark.parametrize("state", [S.LOOKING_UP, S.CLAIMING])
async def test_ledger_that_answers_other_calls_makes_it_overload(world: World, state: FlightState) -> None:
    flight, ledger = flight_in(world, S.QUEUED_FOR_LINKAGE), LedgerProgress()
    flight.entered = state
    await asyncio.sleep(1.0)
    ledger.answered()
    failure = flight.failure_now(ledger)
    assert isinstance(failure, Refusal)
    assert failure.reason == reasons.ERROR_REASON_OVERLOADED


AFTER: Final[dict[str, tuple[FlightState, errors.CallError | None, bool, type[errors.CallError]]]] = {
    "connecting": (S.CONNECTING, None, False, errors.Unreachable),
    "awaiting the answer": (S.AWAITING_ANSWER, None, True, errors.Timeout),
    "connecting after an attempt that was sent": (
        S.CONNECTING, errors.ConnectionLost("x"), False, errors.ConnectionLost),
    "awaiting the answer after an attempt that was sent": (
        S.AWAITING_ANSWER, errors.ConnectionLost("x"), True, errors.Timeout),
    "backing off": (S.BACKING_OFF, errors.Truncated("x"), True, errors.Truncated),
    "backing off, not sent": (S.BACKING_OFF, errors.Unreachable("x"), False, errors.Unreachable),
    "recording": (S.RECORDING, errors.Malformed("x"), True, errors.Malformed),
    "recording, not sent": (S.RECORDING, errors.TlsInvalid("x"), False, errors.TlsInvalid),
    "recording, not sent although it began to": (
        S.RECORDING, errors.LeaseExpired("x"), True, errors.Timeout),
}  # fmt: skip


@pytest.mark.parametrize(("state", "error", "sent", "expected"), AFTER.values(), ids=AFTER.keys())
def test_flight_with_an_attempt_fails_as_the_last_attempt_that_was_sent(
    world: World,
    state: FlightState,
    error: errors.CallError | None,
    sent: bool,
    expected: type[errors.CallError],
) -> None:
    flight = flight_in(world, state, sent=sent)
    if error is not None:
        flight.failures.append(Failure(error, judged(error, flight.circumstances, ResultCodes())))
    assert at_deadline(flight) is expected


# -- the table agrees with the code


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[tuple[FlightState, FlightState]]:
    """Collect the transitions that flights make."""
    transitions: set[tuple[FlightState, FlightState]] = set()
    enter = Flight.enter

    def recorded(flight: Flight, state: FlightState, **more: reasons.ErrorReason | None) -> None:
        if flight.entered is S.CONNECTING and flight.state is S.AWAITING_ANSWER:
            transitions.add((S.CONNECTING, S.AWAITING_ANSWER))
        transitions.add((flight.state, state))
        enter(flight, state, **more)

    monkeypatch.setattr(Flight, "enter", recorded)
    return transitions


async def test_every_legal_transition_happens(
    make: Make, seen: set[tuple[FlightState, FlightState]]
) -> None:
    ledger = FaultyLedger()
    world = make(ledger=ledger)
    other = make(ledger=ledger, client=world.client)
    assert (await world.deliver(world.sync("a", user="u"))).short == OK
    assert (await world.deliver(world.sync("a", user="u"))).short == OK
    world.client.script("b", UNREACHABLE, LOST)
    assert (await world.deliver(world.sync("b"))).short == OK
    world.client.script("c", failing(errors.TlsInvalid("x")))
    assert (await world.deliver(world.sync("c"))).reason == "UPSTREAM_TLS_INVALID"
    # While another request for its linkage is in flight, a finished one is answered from the ledger.
    world.client.script("d", SLOW)
    first = world.start(world.sync("d", user="u", biz_time=2))
    await asyncio.sleep(0.1)
    assert (await world.deliver(world.sync("a", user="u"))).short == OK
    assert (await other.deliver(other.sync("d", user="u", biz_time=2))).short == OK
    assert (await first).short == OK
    # The process shuts down while one request backs off and another one waits for capacity.
    world.delivery._senders["SyncLinkage"].pace.limiter._limit = 1.0
    busy = failing(errors.Unsigned("x", http_status=503, retry_after_s=5.0))
    world.client.script("e", busy)
    world.client.script("f", Step(after_s=3.0))
    calls = []
    for request_id in ("e", "f", "g"):
        calls.append(world.start(world.sync(request_id)))
        await asyncio.sleep(0.1)
    world.delivery.close()
    assert [(await call).reason for call in calls] == ["UPSTREAM_HTTP_ERROR", "OK", "SHUTTING_DOWN"]
    other.client.otherwise = lambda _: LOST
    for number in range(21):
        await other.deliver(other.sync(f"lost {number}"), left_s=0.25)
    assert set(TRANSITIONS) - seen == set()
    assert seen - set(TRANSITIONS) == set()


# -- the documentation


def test_diagram_in_the_architecture_page_is_the_table() -> None:
    page = ARCHITECTURE.read_text("utf-8")
    section = re.search(r"^## The states of a request\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section
    assert re.findall(r"```mermaid\n(.*?)\n```", section[1], re.DOTALL) == [diagram()], diagram()
