"""Calls with the same id and content share a flight; deadlines, cancellation and shutdown of a flight."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from dataclasses import replace
from typing import Final

import pytest
from google.protobuf.message import Message

from clients.alipayhk.wire import errors
from clients.alipayhk.wire.messages import VerifiedResponse
from service.credentials.callers import Caller
from service.delivery.flight import Flight
from service.delivery.sender import Sender
from tests.delivery.world import (
    HANG,
    HANG_CONNECTING,
    IN_PROGRESS,
    LOST,
    OK,
    SLOW,
    TIMEOUT,
    UNAVAILABLE,
    UNREACHABLE,
    UNREACHABLE_TOLD,
    Fault,
    Make,
    S,
    Step,
    World,
    failing,
    refusing,
)
from tests.service.fakes import LogStream, call_of

REUSED = ("REQUEST_ID_REUSED", "not_sent", "new_request_id")
REUSED_OPERATOR = ("REQUEST_ID_REUSED", "not_sent", "operator")


@pytest.mark.parametrize("api", ["sync", "bind"])
async def test_sixty_four_calls_with_one_id_send_once_and_get_one_response(world: World, api: str) -> None:
    order = getattr(world, api)("a")
    reported = await asyncio.gather(*(world.start(order) for _ in range(64)))
    assert {one.short for one in reported} == {OK}
    assert all(one.response == reported[0].response for one in reported)
    assert not reported[0].response.replayed
    assert world.client.ids_seen() == ["a"]


@pytest.mark.parametrize("records", [True, False])
async def test_outcomes_are_recorded_only_in_a_ledger_that_records(world: World, records: bool) -> None:
    world.session._records = records
    calls = [world.start(world.sync("a")) for _ in range(2)]
    await asyncio.sleep(0)
    assert (await world.deliver(world.sync("a", content="unbind"))).short == REUSED
    assert [(await call).short for call in calls] == [OK, OK]
    assert world.client.ids_seen() == ["a"]
    assert world.faulty.done == (["claim", "record"] if records else ["claim"])
    row = await world.row("a")
    assert row is not None
    assert bool(row.fingerprint) is records


async def test_request_is_freed_when_it_has_ended(world: World) -> None:
    gc.collect()
    gc.disable()
    try:
        await world.deliver(world.sync("freed"))
        flights = [found for found in gc.get_objects() if isinstance(found, Flight)]
        assert "freed" not in [flight.request.request_id for flight in flights]
    finally:
        gc.enable()


async def test_later_calls_join_the_flight_and_get_its_failure(world: World) -> None:
    world.client.script("a", Step(refusing("PROCESS_FAIL").error, after_s=1.0, applies=False))
    calls = []
    for _ in range(9):
        calls.append(world.start(world.sync("a")))
        await asyncio.sleep(0.1)
    reported = await asyncio.gather(*calls)
    assert {one.short for one in reported} == {("WALLET_REJECTED", "rejected", "never")}
    assert {one.facts["attempts"] for one in reported} == {"1"}
    assert world.client.ids_seen() == ["a"]


async def test_call_does_not_get_the_refusal_that_another_deadline_caused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins after its flight was refused and before that has undone its claim."""
    abandon = Sender._abandon

    async def slowly(sender: Sender, flight: Flight) -> None:
        await asyncio.sleep(0.5)
        await abandon(sender, flight)

    monkeypatch.setattr(Sender, "_abandon", slowly)
    world.client.script("a", Step(after_s=1.95))
    first = world.start(world.sync("a", user="u"))
    impatient = world.start(world.sync("b", biz_time=2, user="u"), left_s=2.0)
    await asyncio.sleep(1.97)
    patient = world.start(world.sync("b", biz_time=2, user="u"))
    assert (await impatient).short == ("LINKAGE_BUSY", "not_sent", "same_request_id")
    assert (await first).short == (await patient).short == OK


async def test_flight_has_the_latest_deadline_of_its_calls(world: World) -> None:
    world.client.script("a", HANG, HANG, S)
    first = world.start(world.sync("a"), left_s=2.0)
    await asyncio.sleep(1.0)
    patient = world.start(world.sync("a"), left_s=20.0)
    reported = await first
    assert reported.short == TIMEOUT
    assert reported.took_s == pytest.approx(2.0, abs=0.01)
    assert (await patient).short == OK
    assert len(world.client.seen) == 3


async def test_flight_is_not_resent_after_its_last_deadline(world: World) -> None:
    world.client.script("a", HANG, S)
    assert (await world.deliver(world.sync("a"), left_s=2.0)).short == TIMEOUT
    await asyncio.sleep(20.0)
    assert len(world.client.seen) == 1
    assert await world.state("a") == "in_doubt"


async def test_reused_id_of_bind_account_in_flight_needs_an_operator(world: World) -> None:
    world.client.script("a", SLOW)
    first = world.start(world.bind("a"))
    await asyncio.sleep(0.5)
    assert (await world.deliver(world.bind("a", content="y"))).short == REUSED_OPERATOR
    assert (await first).short == OK


BEFORE: Final[dict[str, tuple[Step, tuple[str, str, str]]]] = {
    "applied": (S, REUSED_OPERATOR),
    "in_doubt": (LOST, REUSED_OPERATOR),
    "rejected": (refusing("PARAM_ILLEGAL"), REUSED),
    "refused": (refusing("INVALID_CLIENT"), REUSED),
}


@pytest.mark.parametrize(("state", "row"), BEFORE.items(), ids=BEFORE.keys())
async def test_bind_account_may_use_a_new_id_only_after_a_request_without_effect(
    world: World, state: str, row: tuple[Step, tuple[str, str, str]]
) -> None:
    step, expected = row
    world.client.script("a", step)
    await world.deliver(world.bind("a"))
    assert await world.state("a") == state
    assert (await world.deliver(world.bind("a", content="y"))).short == expected
    assert len(world.client.seen) == 1


async def test_id_in_flight_with_other_content_is_refused(world: World) -> None:
    world.client.script("a", SLOW)
    first = world.start(world.sync("a"))
    await asyncio.sleep(0.5)
    assert (await world.deliver(world.sync("a", content="unbind"))).short == REUSED
    assert (await world.deliver(world.sync("a", biz_time=2))).short == REUSED
    assert (await first).short == OK
    assert world.client.ids_seen() == ["a"]


async def test_same_id_in_the_other_api_is_another_request(world: World) -> None:
    reported = await asyncio.gather(world.start(world.sync("a")), world.start(world.bind("a")))
    assert [one.short for one in reported] == [OK, OK]
    assert len(world.client.seen) == 2


async def test_joining_call_counts_against_no_limit(make: Make) -> None:
    world = make(max_in_flight=1)
    world.client.script("a", SLOW)
    caller = Caller("loyalty", frozenset(), 1)
    calls = [world.start(world.sync("a"), caller=caller) for _ in range(5)]
    await asyncio.sleep(0.5)
    reported = await world.deliver(world.sync("b"), caller=caller)
    assert reported.short == ("CALLER_QUOTA_EXCEEDED", "not_sent", "same_request_id")
    reported = await world.deliver(world.sync("b"))
    assert reported.short == ("OVERLOADED", "not_sent", "same_request_id")
    assert {(await call).short for call in calls} == {OK}
    assert await world.state("b") == "none"


# -- before the first byte


async def test_expired_caller_is_not_told_not_sent_while_others_wait(world: World) -> None:
    world.client.script("a", Step(before_s=1.0))
    impatient = world.start(world.sync("a"), left_s=0.5)
    patient = world.start(world.sync("a"))
    reported = await impatient
    assert reported.short == IN_PROGRESS
    assert reported.took_s == pytest.approx(0.5, abs=0.01)
    assert (await patient).short == OK


async def test_only_the_last_of_many_expired_callers_gets_not_sent(world: World) -> None:
    world.client.script("a", HANG_CONNECTING)
    reported = await asyncio.gather(*(world.start(world.sync("a"), left_s=1.0) for _ in range(8)))
    assert Counter(one.short for one in reported) == {IN_PROGRESS: 7, UNREACHABLE_TOLD: 1}
    await asyncio.sleep(20.0)
    assert not world.client.seen


async def test_last_caller_gets_not_sent_after_the_flight_is_cancelled(world: World) -> None:
    world.client.script("a", Step(before_s=1.0))
    reported = await world.deliver(world.sync("a"), left_s=0.5)
    assert reported.short == UNREACHABLE_TOLD
    assert reported.took_s == pytest.approx(0.5, abs=0.01)
    assert await world.state("a") == "none"
    assert world.faulty.done == ["claim", "undo"]
    again = world.start(world.sync("a", content="corrected"))
    assert (await again).short == OK
    assert len(world.client.seen) == 1
    assert b"corrected" in world.client.seen[0][1]


async def test_nothing_is_sent_after_every_caller_has_disconnected(world: World) -> None:
    world.client.script("a", Step(before_s=1.0))
    calls = [world.start(world.sync("a")) for _ in range(3)]
    await asyncio.sleep(0.5)
    for call in calls:
        call.cancel()
        await asyncio.sleep(0.1)
    assert await world.state("a") == "none"
    await asyncio.sleep(10.0)
    assert not world.client.seen
    assert (await world.deliver(world.sync("a", content="corrected"))).short == OK


@pytest.mark.parametrize("slow", [Fault(before_s=1.0), Fault(after_s=1.0)], ids=["before", "after"])
@pytest.mark.parametrize("api", ["sync", "bind"])
async def test_cancel_during_a_claim_undoes_the_claim(world: World, api: str, slow: Fault) -> None:
    world.faulty.fault("claim", slow)
    order = getattr(world, api)("a")
    call = world.start(order)
    await asyncio.sleep(0.5)
    call.cancel()
    await asyncio.sleep(5.0)
    assert world.faulty.done == ["claim", "undo"]
    assert await world.state("a") == "none"
    assert not world.client.attempts
    assert (await world.deliver(order)).short == OK


@pytest.mark.parametrize("slow", [Fault(before_s=1.0), Fault(after_s=1.0)], ids=["before", "after"])
async def test_deadline_and_then_cancel_during_a_claim_undo_the_claim(world: World, slow: Fault) -> None:
    world.faulty.fault("claim", slow)
    call = world.start(world.sync("a"), left_s=0.5)
    for after_s in (0.505, 0.005):
        await asyncio.sleep(after_s)
        call.cancel()
    await asyncio.sleep(5.0)
    assert await world.state("a") == "none"
    assert not world.client.attempts


@pytest.mark.parametrize("left_s", [0.15, 0.3, 1.0])
@pytest.mark.parametrize(("operation", "short"), [("claim", UNAVAILABLE), ("undo", IN_PROGRESS)])
async def test_hanging_ledger_does_not_delay_the_caller(
    world: World, operation: str, short: tuple[str, str, str], left_s: float
) -> None:
    world.client.script("a", HANG_CONNECTING)
    world.faulty.fault(operation, Fault(before_s=3.0))
    reported = await world.deliver(world.sync("a"), left_s)
    assert reported.short == short
    # The caller's deadline is a tenth of its timeout later, or 50 ms.
    assert reported.took_s < left_s + min(0.05, left_s / 10)
    await asyncio.sleep(5.0)
    assert await world.state("a") == "none"
    assert not world.client.seen


async def test_call_during_a_cancellation_starts_a_new_flight(world: World) -> None:
    world.client.script("a", HANG_CONNECTING)
    world.faulty.fault("undo", Fault(before_s=1.0))
    call = world.start(world.sync("a"))
    await asyncio.sleep(0.5)
    call.cancel()
    await asyncio.sleep(0.1)
    reported = await asyncio.gather(*(world.start(world.sync("a", content="corrected")) for _ in range(3)))
    assert {one.short for one in reported} == {OK}
    assert len(world.client.seen) == 1


# -- after the first byte


@pytest.mark.parametrize("api", ["sync", "bind"])
async def test_attempt_continues_without_its_caller_and_is_replayed_later(world: World, api: str) -> None:
    world.client.script("a", SLOW)
    order = getattr(world, api)("a")
    call = world.start(order)
    await asyncio.sleep(0.5)
    call.cancel()
    await asyncio.sleep(1.0)
    assert await world.state("a") == "applied"
    again = await world.deliver(order)
    assert again.short == OK
    assert again.response.replayed
    assert len(world.client.seen) == 1


@pytest.mark.parametrize("api", ["sync", "bind"])
async def test_same_id_joins_an_attempt_without_a_caller(world: World, api: str) -> None:
    world.client.script("a", SLOW)
    order = getattr(world, api)("a")
    assert (await world.deliver(order, left_s=0.5)).reason == "UPSTREAM_TIMEOUT"
    again = await world.deliver(order)
    assert again.short == OK
    assert not again.response.replayed
    assert len(world.client.seen) == 1


async def test_deadline_between_two_attempts_reports_the_last_failure(world: World) -> None:
    world.client.script("a", LOST, S)
    patient = world.start(world.sync("a"))
    reported = await world.deliver(world.sync("a"), left_s=0.1)
    assert reported.short == ("CONNECTION_LOST", "unknown", "same_request_id")
    assert (await patient).short == OK


async def test_deadline_in_a_later_attempt_reports_a_timeout(world: World) -> None:
    world.client.script("a", LOST, HANG)
    reported = await world.deliver(world.sync("a"), left_s=2.0)
    assert reported.short == TIMEOUT
    assert reported.facts["attempts"] == "2"
    assert reported.took_s == pytest.approx(2.0, abs=0.01)


async def test_deadline_while_a_later_attempt_connects_reports_the_attempt_that_was_sent(
    world: World,
) -> None:
    world.client.script("a", LOST, HANG_CONNECTING)
    reported = await world.deliver(world.sync("a"), left_s=2.0)
    assert reported.short == ("CONNECTION_LOST", "unknown", "same_request_id")
    assert reported.facts["attempts"] == "2"


async def test_attempt_that_sends_while_it_is_cancelled_is_not_reported_as_not_sent(world: World) -> None:
    world.client.script("a", Step(before_s=1.0, stubborn=True))
    assert (await world.deliver(world.sync("a"), left_s=0.5)).short == TIMEOUT
    assert await world.state("a") == "in_doubt"


async def test_call_during_a_cancellation_that_hangs_returns_by_its_deadline(world: World) -> None:
    world.client.script("a", HANG_CONNECTING)
    world.faulty.fault("undo", Fault(before_s=5.0))
    assert (await world.deliver(world.bind("a"), left_s=0.5)).outcome == "unknown"
    reported = await world.deliver(world.bind("a"), left_s=0.5)
    assert reported.outcome == "unknown"
    assert 0.5 <= reported.took_s < 0.6


async def test_failed_call_keeps_the_verdict_that_was_recorded(world: World) -> None:
    world.client.script("a", LOST)
    call = call_of(api="BindAccount", idempotent=False)
    with pytest.raises(errors.ConnectionLost) as raised:
        await world.delivery.deliver(world.bind("a"), call)
    assert call.failure is not None
    assert call.failure.error is raised.value


# -- shutting down, and too little time


async def test_close_refuses_new_requests_and_finishes_those_in_flight(world: World) -> None:
    world.client.script("a", SLOW)
    under_way = world.start(world.sync("a"))
    await asyncio.sleep(0.5)
    world.delivery.close()
    for left_s in (10.0, 0.0):
        reported = await world.deliver(world.sync("b"), left_s)
        assert reported.short == ("SHUTTING_DOWN", "not_sent", "same_request_id")
    assert not await world.delivery.idle(0.1)
    assert await world.delivery.idle(1.0)
    assert (await under_way).short == OK
    assert await world.state("a") == "applied"
    assert await world.state("b") == "none"


async def test_request_claimed_during_shutdown_is_not_sent(world: World) -> None:
    """The shutdown would not wait for an attempt that starts after it."""
    world.faulty.fault("claim", Fault(before_s=0.3))
    call = world.start(world.sync("a"))
    await asyncio.sleep(0.1)
    world.delivery.close()
    assert (await call).short == ("SHUTTING_DOWN", "not_sent", "same_request_id")
    assert not world.client.attempts
    assert await world.state("a") == "none"


async def test_idle_waits_for_attempts_without_callers(world: World) -> None:
    world.client.script("a", HANG)
    call = world.start(world.sync("a"))
    await asyncio.sleep(0.5)
    call.cancel()
    began = time.monotonic()
    assert await world.delivery.idle(10.0)
    assert time.monotonic() - began == pytest.approx(3.5, abs=0.1)
    assert await world.state("a") == "in_doubt"


@pytest.mark.parametrize("left_s", [0.099, 0.0, -1.0])
async def test_call_with_too_little_time_does_not_read_the_ledger(world: World, left_s: float) -> None:
    reported = await world.deliver(world.sync("a"), left_s=left_s)
    assert reported.short == ("DEADLINE_TOO_SHORT", "not_sent", "same_request_id")
    assert not world.faulty.done


async def test_call_with_too_little_time_after_waiting_for_capacity_is_not_sent(make: Make) -> None:
    world = make(max_in_flight=2)
    for limiter in (sender.pace.limiter for sender in world.delivery._senders.values()):
        limiter._limit = 1.0
    world.client.script("a", Step(after_s=0.95))
    first, second = world.start(world.sync("a")), world.start(world.sync("b"), left_s=1.0)
    assert (await first).short == OK
    reported = await second
    assert reported.short[1:] == ("not_sent", "same_request_id")
    assert reported.reason in {"DEADLINE_TOO_SHORT", "OVERLOADED"}
    assert world.client.ids_seen() == ["a"]


async def test_deadline_before_the_next_attempt_reports_unreachable(world: World) -> None:
    world.client.otherwise = lambda _: UNREACHABLE
    reported = await world.deliver(world.sync("a"), left_s=3.0)
    assert reported.short == UNREACHABLE_TOLD
    assert reported.took_s < 3.01
    assert await world.state("a") == "none"


async def test_long_backoff_does_not_delay_shutdown(world: World) -> None:
    busy = errors.Unsigned("x", http_status=503, retry_after_s=30.0)
    world.client.script("a", failing(busy), S)
    call = world.start(world.sync("a"), left_s=60.0)
    await asyncio.sleep(1.0)
    world.delivery.close()
    assert await world.delivery.idle(1.0)
    assert (await call).short == ("UPSTREAM_HTTP_ERROR", "unknown", "same_request_id")
    assert await world.state("a") == "in_doubt"
    assert len(world.client.seen) == 1


async def test_call_at_any_moment_of_a_cancellation_succeeds(world: World) -> None:
    loop = asyncio.get_running_loop()
    for turns in range(20):
        name = f"after {turns}"
        world.client.script(name, HANG_CONNECTING)
        call = world.start(world.sync(name))
        await asyncio.sleep(0.5)
        call.cancel()
        # A timer runs after all other callbacks that are ready, as a call from outside may.
        due = loop.create_future()
        loop.call_later(0, due.set_result, None)
        await due
        for _ in range(turns):
            await asyncio.sleep(0)
        assert (await world.deliver(world.sync(name))).short == OK, turns


async def test_unhandled_exception_without_a_caller_is_logged(world: World, log_lines: LogStream) -> None:
    def reply(_: VerifiedResponse) -> Message:
        raise TypeError("88781108")

    world.client.script("a", SLOW)
    call = world.start(replace(world.sync("a"), reply=reply))
    await asyncio.sleep(0.5)
    call.cancel()
    await asyncio.sleep(1.0)
    (line,) = log_lines.of("unhandled exception in delivery task")
    assert line["error_class"] == "TypeError"
    assert "88781108" not in log_lines.getvalue()
    assert await world.state("a") == "in_doubt"
    reported = await world.deliver(replace(world.sync("b"), reply=reply))
    assert reported.short == ("GATEWAY_BUG", "unknown", "operator")
    assert len(log_lines.of("unhandled exception in delivery task")) == 1


async def test_unhandled_exception_before_the_flight_is_not_reported_as_not_sent(world: World) -> None:
    class Lost(str):
        __slots__ = ()

        def __hash__(self) -> int:
            raise KeyError("SECRET")

    reported = await world.deliver(world.sync("a"), caller=Caller(Lost("a"), frozenset()))
    assert reported.short == ("GATEWAY_BUG", "unknown", "operator")
