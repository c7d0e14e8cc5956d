"""A ledger that fails, hangs or loses writes: requests are refused before sending, and results are kept."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from service.ledger import Ending, Key
from service.outcomes.refusal import Refusal
from tests.delivery.world import (
    BUSY,
    FAILS,
    HANG,
    IN_PROGRESS,
    LEASE_S,
    LOSES,
    LOST,
    OK,
    SLOW,
    STALE,
    TIMEOUT,
    UNAVAILABLE,
    UNREACHABLE,
    UNREACHABLE_TOLD,
    Fault,
    Make,
    S,
    Step,
    U,
    World,
    refusing,
    wall_s,
)
from tests.service.fakes import LogStream, call_of

UNAVAILABLE_AFTER_IT_WAS_SENT = ("LEDGER_UNAVAILABLE", "unknown", "same_request_id")
REJECTED = ("WALLET_REJECTED", "rejected", "never")
UNKNOWN = ("WALLET_RESULT_UNKNOWN", "unknown", "same_request_id")
CLAIM_LOST = "result not recorded: claim lost"
NOT_RECORDED = "result not recorded yet"


def unrecorded(world: World) -> float | None:
    return world.metrics.registry.get_sample_value("alipayhk_ledger_unrecorded")


async def recorded(world: World) -> tuple[str, str, bool]:
    """Return the state and result status of the recorded outcome, and whether it has data for a replay."""
    row = await world.row("a")
    assert row is not None
    assert row.ending is not None
    return str(row.state), row.ending.result_status, bool(row.ending.sealed)


@pytest.mark.parametrize("api", ["sync", "bind"])
async def test_nothing_is_sent_without_the_ledger(world: World, api: str) -> None:
    world.faulty.broken = True
    order = getattr(world, api)("a")
    assert (await world.deliver(order)).short == UNAVAILABLE
    with pytest.raises(Refusal, match="disk full"):
        await world.delivery.deliver(order, call_of())
    assert not world.client.attempts
    world.faulty.broken = False
    assert (await world.deliver(order)).short == OK


async def test_only_sync_linkage_is_sent_without_the_ledger_where_allowed(make: Make) -> None:
    world = make(without_ledger=True)
    world.faulty.broken = True
    world.client.script("a", U, LOST, S)
    assert (await world.deliver(world.sync("a"))).short == OK
    assert len(world.client.seen) == 3
    assert (await world.deliver(world.bind("b"))).short == UNAVAILABLE
    assert "b" not in world.client.ids_seen()


async def test_linkage_queue_and_single_flight_work_without_the_ledger(make: Make) -> None:
    world = make(without_ledger=True)
    world.faulty.broken = True
    world.client.otherwise = lambda _: SLOW
    calls = [world.start(world.sync(name, user="u", biz_time=9)) for name in "aab"]
    assert [(await call).short for call in calls] == [OK, OK, OK]
    assert world.client.ids_seen() == ["a", "b"]
    assert world.client.at_once_max == 1


async def test_claim_reported_as_failed_is_not_sent_and_is_in_doubt_after_its_lease(world: World) -> None:
    world.faulty.fault("claim", LOSES)
    assert (await world.deliver(world.sync("a"))).short == UNAVAILABLE
    assert not world.client.attempts
    reported = await world.deliver(world.sync("a"), left_s=1.0)
    assert reported.short == IN_PROGRESS
    assert (await world.deliver(world.sync("a"))).short == OK


ENDS = {
    "S": (S, OK, "applied"),
    "F": (refusing("PROCESS_FAIL"), REJECTED, "rejected"),
    "U": (U, UNKNOWN, "in_doubt"),
}
RECORDED = {"applied": "S", "rejected": "F", "refused": "F", "in_doubt": ""}


@pytest.mark.parametrize("fault", [FAILS, LOSES], ids=["fails", "loses"])
@pytest.mark.parametrize(("step", "short", "state"), ENDS.values(), ids=ENDS.keys())
async def test_answer_is_returned_and_recorded_later(
    world: World,
    log_lines: LogStream,
    step: Step,
    short: tuple[str, str, str],
    state: str,
    fault: Fault,
) -> None:
    world.client.script("a", step)
    world.faulty.fault("record", fault)
    reported = await world.deliver(world.sync("a"), left_s=0.25)
    assert reported.short == short
    assert unrecorded(world) == len(log_lines.of(NOT_RECORDED)) == 1
    world.faulty.broken = True
    await world.session.flush()
    assert (await world.deliver(world.sync("a"))).short == UNAVAILABLE_AFTER_IT_WAS_SENT
    assert len(world.client.seen) == 1
    world.faulty.broken = False
    await world.session.flush()
    assert unrecorded(world) == 0
    assert await recorded(world) == (state, RECORDED[state], state != "in_doubt")
    assert log_lines.of(CLAIM_LOST) == []


async def test_pending_result_whose_claim_was_lost_is_given_up(world: World, log_lines: LogStream) -> None:
    world.faulty.fault("record", FAILS)
    await world.deliver(world.sync("a"))
    row = await world.row("a")
    assert row is not None
    world.faulty._rows[row.key] = replace(row, token=row.token + 1)
    await world.session.flush()
    assert unrecorded(world) == 0
    assert len(log_lines.of(CLAIM_LOST)) == 1


async def test_call_with_the_same_id_writes_the_pending_result(world: World) -> None:
    world.faulty.fault("record", FAILS)
    assert (await world.deliver(world.bind("a"))).short == OK
    assert await world.state("a") == "sending"
    again = await world.deliver(world.bind("a"))
    assert (again.short, again.response.replayed) == (OK, True)
    assert unrecorded(world) == 0
    assert len(world.client.seen) == 1


async def test_call_is_not_told_not_sent_while_the_pending_result_of_its_id_is_written(
    world: World,
) -> None:
    world.faulty.fault("record", FAILS, Fault(before_s=2.0))
    assert (await world.deliver(world.sync("a"))).short == OK
    again = await world.deliver(world.sync("a"), left_s=1.0)
    assert again.short == UNAVAILABLE_AFTER_IT_WAS_SENT


async def test_call_is_told_not_sent_while_the_pending_result_of_its_linkage_is_written(
    world: World,
) -> None:
    world.faulty.fault("record", FAILS, Fault(before_s=2.0))
    assert (await world.deliver(world.sync("a", user="u"))).short == OK
    other = await world.deliver(world.sync("b", user="u", biz_time=2), left_s=1.0)
    assert other.short == UNAVAILABLE


@pytest.mark.parametrize("idempotent", [True, False])
async def test_only_the_outcome_of_sync_linkage_may_be_late(
    idempotent: bool, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(bind_account_idempotent=idempotent)
    late: dict[str, bool] = {}
    work = world.faulty.record

    async def record(key: Key, token: int, ending: Ending, now_ms: int) -> bool:
        late[key.api] = ending.may_be_late
        return await work(key, token, ending, now_ms)

    monkeypatch.setattr(world.faulty, "record", record)
    for order in (world.sync("a"), world.bind("b")):
        assert (await world.deliver(order)).short == OK
    assert late == {"SyncLinkage": True, "BindAccount": False}


BUSY_ROWS = {
    "answer is recorded before it is returned": (S, OK, "applied"),
    "rejection is recorded before it is returned": (refusing("PROCESS_FAIL"), REJECTED, "rejected"),
    "refusal of the gateway is recorded before it is returned": (
        refusing("ACCESS_DENIED"),
        ("GATEWAY_REFUSED", "rejected", "operator"),
        "refused",
    ),
}


@pytest.mark.parametrize(("step", "short", "state"), BUSY_ROWS.values(), ids=BUSY_ROWS.keys())
async def test_result_is_retried_while_the_ledger_is_busy(
    world: World, log_lines: LogStream, step: Step, short: tuple[str, str, str], state: str
) -> None:
    world.client.script("a", step)
    world.faulty.fault("record", BUSY, BUSY, BUSY)
    reported = await world.deliver(world.bind("a"), left_s=4.0)
    assert reported.short == short
    assert await recorded(world) == (state, RECORDED[state], state != "refused")
    assert unrecorded(world) == len(log_lines.of(NOT_RECORDED)) == 0


@pytest.mark.parametrize(("step", "short", "state"), BUSY_ROWS.values(), ids=BUSY_ROWS.keys())
async def test_busy_ledger_does_not_delay_an_answer_past_its_deadline(
    world: World, step: Step, short: tuple[str, str, str], state: str
) -> None:
    world.client.script("a", step)
    world.faulty.fault("record", *[BUSY] * 20)
    reported = await world.deliver(world.bind("a"), left_s=4.0)
    assert reported.short == short
    assert 3.7 < reported.took_s < 4.3
    assert unrecorded(world) == 1
    world.faulty.faults["record"].clear()
    await asyncio.sleep(1.0)
    await world.session.flush()
    assert await world.state("a") == state


async def test_pending_result_is_written_at_shutdown(world: World) -> None:
    world.faulty.fault("record", FAILS)
    await world.deliver(world.sync("a"))
    await world.session.close()
    assert await world.state("a") == "applied"


async def test_results_lost_at_shutdown_are_counted_in_the_log(world: World, log_lines: LogStream) -> None:
    world.faulty.fault("record", FAILS, FAILS)
    await world.deliver(world.sync("a"))
    await world.session.close()
    (line,) = log_lines.of("results lost at shutdown")
    assert line["count"] == 1
    assert "dropped" not in line


async def test_claims_that_are_left_at_shutdown_are_logged(
    world: World, log_lines: LogStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def close() -> list[Key]:
        return [world.sync("a").key, world.sync("b").key]

    monkeypatch.setattr(world.faulty, "close", close)
    await world.session.close()
    lines = log_lines.of("claim not undone at shutdown")
    assert [(line["level"], line["api"], line["request_id"]) for line in lines] == [
        ("error", "SyncLinkage", "a"),
        ("error", "SyncLinkage", "b"),
    ]
    assert "dropped" not in lines[0]


@pytest.mark.parametrize("code", ["A\0B", "CARD_4111111111111111", "\ud800"])
async def test_odd_result_code_is_replayed_but_not_recorded(world: World, code: str) -> None:
    world.client.script("a", refusing(code))
    for replayed in ("", "true"):
        reported = await world.deliver(world.sync("a"))
        assert reported.short == ("WALLET_REJECTED", "rejected", "new_request_id")
        assert (reported.facts["result_code"], reported.facts.get("replayed", "")) == (code, replayed)
    row = await world.row("a")
    assert row is not None
    assert row.ending is not None
    assert row.ending.result_code == "other"


async def test_shutdown_waits_three_seconds_for_a_hanging_ledger(
    world: World, log_lines: LogStream
) -> None:
    world.faulty.fault("record", FAILS, Fault(before_s=1000.0))
    await world.deliver(world.sync("a"))
    began = time.monotonic()
    await world.session.close()
    assert time.monotonic() - began == pytest.approx(3.0)
    assert len(log_lines.of("results lost at shutdown")) == 1


async def test_undo_on_a_busy_ledger_does_not_delay_the_answer(make: Make) -> None:
    world = make(attempts_max=1)
    world.client.script("a", UNREACHABLE)
    world.faulty.fault("undo", *[BUSY] * 20)
    reported = await world.deliver(world.bind("a"))
    assert reported.short == UNREACHABLE_TOLD
    assert reported.took_s < 1.0
    world.faulty.faults["undo"].clear()


async def test_failed_undo_is_repeated_and_frees_the_id(world: World) -> None:
    world.client.script("a", UNREACHABLE)
    world.faulty.fault("undo", FAILS)
    reported = await world.deliver(world.bind("a"), left_s=0.25)
    assert reported.short == UNREACHABLE_TOLD
    assert await world.state("a") == "sending"
    assert (await world.deliver(world.bind("a", content="mended"))).short == OK


@pytest.mark.parametrize(("step", "short", "state"), list(ENDS.values())[:2], ids=["S", "F"])
@pytest.mark.parametrize("api", ["sync", "bind"])
async def test_hanging_record_does_not_delay_the_answer(
    world: World, api: str, step: Step, short: tuple[str, str, str], state: str
) -> None:
    world.client.script("a", step)
    world.faulty.fault("record", Fault(before_s=30.0))
    reported = await world.deliver(getattr(world, api)("a"), left_s=2.0)
    assert reported.short == short
    assert reported.took_s < 2.3
    await asyncio.sleep(40.0)
    assert await world.state("a") == state


async def test_lost_lease_ends_the_resends(world: World, log_lines: LogStream) -> None:
    world.client.script("a", HANG, S)
    call = world.start(world.sync("a"), left_s=20.0)
    await asyncio.sleep(4.05)
    row = await world.row("a")
    assert row is not None
    taken_over = replace(row, token=row.token + 1)
    world.faulty._rows[row.key] = taken_over
    reported = await call
    assert reported.short == TIMEOUT
    assert len(world.client.seen) == 1
    assert await world.row("a") == taken_over
    assert len(log_lines.of(CLAIM_LOST)) == 1


@pytest.mark.parametrize("faults", [(), (BUSY,)], ids=["at once", "after the ledger was busy"])
@pytest.mark.parametrize(
    ("code", "short"),
    [
        ("ALREADY_DONE_IN_OTHER_WORDS", ("WALLET_REJECTED", "unknown", "operator")),
        ("ACCESS_DENIED", ("GATEWAY_REFUSED", "unknown", "operator")),
        ("PROCESS_FAIL", REJECTED),
    ],
)
async def test_rejection_of_an_attempt_that_was_overtaken_may_be_about_the_other_attempt(
    world: World, code: str, short: tuple[str, str, str], faults: tuple[Fault, ...]
) -> None:
    """A step of the ledger's clock ends a lease early, and another process sends the request, too."""
    world.client.script("a", replace(refusing(code), after_s=1.0))
    world.faulty.fault("record", *faults)
    call = world.start(world.sync("a"))
    await asyncio.sleep(0.5)
    row = await world.row("a")
    assert row is not None
    world.faulty._rows[row.key] = replace(row, token=row.token + 1)
    assert (await call).short == short


@pytest.mark.parametrize("fault", [FAILS, LOSES], ids=["fails", "loses"])
async def test_nothing_is_resent_if_the_lease_cannot_be_renewed(world: World, fault: Fault) -> None:
    world.client.script("a", LOST, S)
    world.faulty.fault("renew", fault)
    reported = await world.deliver(world.sync("a"))
    assert reported.short == ("CONNECTION_LOST", "unknown", "same_request_id")
    assert len(world.client.seen) == 1
    assert await world.state("a") == "in_doubt"
    assert (await world.deliver(world.sync("a"))).short == OK


@pytest.mark.parametrize("fault", [FAILS, LOSES], ids=["fails", "loses"])
async def test_nothing_is_sent_if_the_lease_cannot_be_extended(world: World, fault: Fault) -> None:
    world.client.script("a", UNREACHABLE, S)
    world.faulty.fault("extend", fault)
    reported = await world.deliver(world.bind("a"))
    assert reported.short == UNREACHABLE_TOLD
    assert not world.client.seen
    assert await world.state("a") == "none"


async def test_failed_lookup_refuses_a_queued_request(world: World) -> None:
    world.client.script("a", SLOW)
    first = world.start(world.sync("a", user="u"))
    await asyncio.sleep(0.1)
    world.faulty.fault("look", FAILS)
    assert (await world.deliver(world.sync("b", user="u", biz_time=2))).short == UNAVAILABLE
    assert (await first).short == OK


@pytest.mark.parametrize("operation", ["claim", "look", "renew", "extend", "record", "undo"])
@pytest.mark.parametrize("fault", [FAILS, LOSES, Fault(before_s=0.3), Fault(after_s=0.3)], ids=repr)
async def test_bind_account_never_takes_effect_twice_under_any_ledger_fault(
    world: World, operation: str, fault: Fault
) -> None:
    world.client.script("a", UNREACHABLE, LOST)
    world.faulty.fault(operation, fault)
    for _ in range(4):
        await world.deliver(world.bind("a"), left_s=2.0)
        await asyncio.sleep(6.0)
        await world.session.flush()
    assert len(world.client.seen) <= 1
    row = await world.row("a")
    assert row is None or row.is_in_doubt(round(wall_s() * 1000))


async def test_unreadable_stored_response_is_not_reported_as_not_sent(world: World) -> None:
    await world.deliver(world.sync("a"))
    row = await world.row("a")
    assert row is not None
    assert row.ending is not None
    world.faulty._rows[row.key] = replace(row, ending=replace(row.ending, sealed=b"x" * 64))
    reported = await world.deliver(world.sync("a"))
    assert reported.short == ("GATEWAY_BUG", "unknown", "operator")


async def test_older_request_is_not_sent_while_a_newer_result_is_pending(world: World) -> None:
    world.faulty.fault("record", FAILS)
    assert (await world.deliver(world.sync("newer", user="u", biz_time=5))).short == OK
    await asyncio.sleep(LEASE_S)
    world.faulty.fault("record", FAILS)
    reported = await world.deliver(world.sync("older", user="u", biz_time=3))
    assert reported.short == UNAVAILABLE
    reported = await world.deliver(world.sync("older", user="u", biz_time=3))
    assert reported.short == STALE
    assert world.client.ids_seen() == ["newer"]


async def test_pending_result_of_another_linkage_blocks_nothing(world: World) -> None:
    world.faulty.fault("record", FAILS)
    assert (await world.deliver(world.sync("a"))).short == OK
    assert (await world.deliver(world.sync("b"))).short == OK
    assert unrecorded(world) == 1


async def test_pending_results_are_written_in_one_commit(world: World) -> None:
    world.faulty.fault("record", *(FAILS,) * 50)
    await asyncio.gather(*(world.start(world.sync(f"{number}")) for number in range(50)))
    assert unrecorded(world) == 50
    world.faulty.fault("record", *(Fault(before_s=0.5, fails=True),) * 50)
    began = time.monotonic()
    await world.session.flush()
    assert time.monotonic() - began < 1.0
    assert unrecorded(world) == 50
    await world.session.close()
    assert unrecorded(world) == 0


async def test_result_that_cannot_be_written_does_not_block_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.faulty.fault("record", FAILS, FAILS)
    await asyncio.gather(*(world.start(world.sync(name)) for name in "ab"))
    work = world.faulty.record

    async def record(key: Key, *rest: Any) -> bool:
        if key.request_id == "a":
            raise TypeError("a bug")
        return await work(key, *rest)

    monkeypatch.setattr(world.faulty, "record", record)
    with pytest.raises(TypeError):
        await world.session.flush()
    assert [await world.state(name) for name in "ab"] == ["sending", "applied"]


async def test_final_results_are_dropped_by_the_age_of_an_earlier_mark(world: World) -> None:
    await world.deliver(world.sync("a"))
    await world.session.drop(older_than_s=3600.0)
    await asyncio.sleep(3600.0)
    await world.deliver(world.sync("b"))
    for older_than_s, states in ((3600.5, ["applied", "applied"]), (3599.5, ["none", "applied"])):
        await world.session.drop(older_than_s=older_than_s)
        assert [await world.state(name) for name in "ab"] == states


# -- a deadline that expires while a call waits for the ledger


STUCK = Fault(before_s=1000.0)
OVERLOADED = ("OVERLOADED", "not_sent", "same_request_id")


@pytest.mark.parametrize(
    ("others_until_s", "short"),
    [(2.0, OVERLOADED), (0.5, UNAVAILABLE), (0.0, UNAVAILABLE)],
    ids=["all the time", "in the earlier half", "not at all"],
)
async def test_call_that_waits_for_a_ledger_that_answers_others_gets_overloaded(
    world: World, others_until_s: float, short: tuple[str, str, str]
) -> None:
    world.faulty.fault("claim", STUCK)
    waiting, began = world.start(world.sync("waiting"), 2.0), time.monotonic()
    await asyncio.sleep(0.01)
    while time.monotonic() < began + others_until_s - 0.1:
        assert (await world.deliver(world.sync(f"other {time.monotonic()}"))).short == OK
        await asyncio.sleep(0.05)
    assert (await waiting).short == short
    assert "waiting" not in world.client.ids_seen()
