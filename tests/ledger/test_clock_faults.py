"""Behaviour of every level after the wall clock was set ahead or back since a row was written."""

from __future__ import annotations

from typing import Final

import pytest

from service.ledger import ClaimRejected, Ending, Granted, InProgress, Ledger, LinkageBusy, State
from service.ledger.lease import LEASE_MARGIN_S, LEASE_MAX_MS, Clock, Lease
from tests.ledger.clocked import AtTestTime
from tests.ledger.levels import (
    APPLIED,
    GATEWAY_REJECTED,
    IN_DOUBT,
    LEASE_MS,
    NOW_MS,
    REJECTED,
    a_bind,
    a_claim,
    ended,
    granted,
    row_of,
    the_row,
)

HOUR_MS: Final = 3_600_000
AHEAD_MS: Final = NOW_MS + HOUR_MS
"""The clock at the claim of a process that was killed; later the clock is set back to NOW_MS."""
UNTIL_MS: Final = NOW_MS + LEASE_MAX_MS


async def test_claim_that_reads_an_impossibly_long_lease_shortens_it_once(ledger: Ledger) -> None:
    await granted(ledger, a_bind(), AHEAD_MS)
    assert await ledger.claim(a_bind(), NOW_MS) == InProgress(UNTIL_MS)
    assert (await the_row(ledger, a_bind())).lease_until_ms == UNTIL_MS
    assert await ledger.claim(a_bind(), UNTIL_MS - 1) == InProgress(UNTIL_MS)
    assert await ledger.claim(a_bind(), UNTIL_MS) is ClaimRejected.IN_DOUBT


async def test_look_reports_an_impossibly_long_lease_as_shortened(ledger: Ledger) -> None:
    await granted(ledger, a_claim(), AHEAD_MS)
    assert await ledger.look(a_claim(), NOW_MS) == InProgress(UNTIL_MS)
    assert await ledger.look(a_claim("id-2", biz_time_ms=NOW_MS + 1), NOW_MS) == LinkageBusy(UNTIL_MS)


async def test_impossibly_long_lease_does_not_block_its_linkage(ledger: Ledger) -> None:
    await granted(ledger, a_claim(), AHEAD_MS)
    newer = a_claim("id-2", biz_time_ms=NOW_MS + 1)
    assert await ledger.claim(newer, NOW_MS) == LinkageBusy(UNTIL_MS)
    assert (await the_row(ledger, a_claim())).lease_until_ms == UNTIL_MS
    assert isinstance(await ledger.claim(newer, UNTIL_MS), Granted)


async def test_doubt_with_an_impossibly_long_lease_leaves_its_linkage_free(
    ledger: Ledger,
) -> None:
    await ended(ledger, a_claim(), IN_DOUBT, AHEAD_MS)
    answer = await ledger.claim(a_claim(), NOW_MS)
    assert isinstance(answer, Granted)
    assert answer.was_in_doubt


async def test_delayed_claim_shortens_no_lease_that_was_granted_meanwhile(ledger: AtTestTime) -> None:
    """Its process read the time, and was suspended for an hour before the ledger got the claim."""
    await granted(ledger, a_claim(), AHEAD_MS)
    ledger.clock_ms = AHEAD_MS
    for ask in (ledger.look, ledger.claim):
        assert await ask(a_claim(), NOW_MS) == InProgress(AHEAD_MS + LEASE_MS)
        assert await ask(a_claim("id-2"), NOW_MS) == LinkageBusy(AHEAD_MS + LEASE_MS)
    assert (await the_row(ledger, a_claim())).lease_until_ms == AHEAD_MS + LEASE_MS


@pytest.mark.parametrize("may_repeat", [True, False])
async def test_claim_asked_for_before_the_clock_was_set_back_takes_over_no_lease(
    ledger: AtTestTime, may_repeat: bool
) -> None:
    """It waited for the ledger's lock, and by the time at which it was asked for the lease has expired."""
    token = await granted(ledger, a_claim(may_repeat=may_repeat))
    ledger.clock_ms = NOW_MS + 1
    for ask in (ledger.look, ledger.claim):
        assert await ask(a_claim(may_repeat=may_repeat), AHEAD_MS) == InProgress(NOW_MS + LEASE_MS)
        other = a_claim("id-2", biz_time_ms=NOW_MS + 1)
        assert await ask(other, AHEAD_MS) == LinkageBusy(NOW_MS + LEASE_MS)
    assert await ledger.record(a_claim().key, token, APPLIED, NOW_MS)


async def test_lease_asked_for_before_the_clock_was_set_back_lasts_no_longer(ledger: AtTestTime) -> None:
    ledger.clock_ms = NOW_MS
    token = await granted(ledger, a_claim(), AHEAD_MS)
    assert (await the_row(ledger, a_claim())).lease_until_ms == NOW_MS + LEASE_MS
    for name in ("renew", "extend"):
        assert await getattr(ledger, name)(a_claim().key, token, LEASE_MS + 1, AHEAD_MS)
        assert (await the_row(ledger, a_claim())).lease_until_ms == NOW_MS + LEASE_MS + 1


@pytest.mark.parametrize("name", ["renew", "extend"])
@pytest.mark.parametrize("asked_ms", [NOW_MS, AHEAD_MS])
async def test_holder_is_overtaken_although_the_clock_was_set_since_it_asked(
    ledger: AtTestTime, name: str, asked_ms: int
) -> None:
    """When it asked, its own lease held, or that of the other request had expired."""
    token = await granted(ledger, a_claim())
    until_ms = NOW_MS + LEASE_MS
    await granted(ledger, a_claim("other"), until_ms)
    ledger.clock_ms = until_ms
    assert not await getattr(ledger, name)(a_claim().key, token, LEASE_MS, asked_ms)


async def test_no_person_resolves_a_request_whose_lease_holds_since_the_clock_was_set_back(
    ledger: AtTestTime,
) -> None:
    await granted(ledger, a_bind())
    ledger.clock_ms = NOW_MS + 1
    key, who = a_bind().key, {"who": "ops", "why": "asked AlipayHK"}
    assert not await ledger.resolve(key, Ending(State.REJECTED), **who, now_ms=AHEAD_MS)
    assert (await the_row(ledger, a_bind())).lease_until_ms == NOW_MS + LEASE_MS


async def test_resolve_shortens_an_impossibly_long_lease(ledger: Ledger) -> None:
    await granted(ledger, a_bind(), AHEAD_MS)
    key, who = a_bind().key, {"who": "ops", "why": "asked AlipayHK"}
    assert not await ledger.resolve(key, Ending(State.REJECTED), **who, now_ms=NOW_MS)
    assert (await the_row(ledger, a_bind())).lease_until_ms == UNTIL_MS
    assert await ledger.resolve(key, Ending(State.REJECTED), **who, now_ms=UNTIL_MS)


async def test_longest_lease_of_any_setting_is_not_shortened(ledger: Ledger) -> None:
    """A gateway with a short UPSTREAM_TIMEOUT_S reads the lease of a gateway with the longest one."""
    await granted(ledger, a_bind(lease_ms=LEASE_MAX_MS))
    change = (await the_row(ledger, a_bind())).change
    assert await ledger.claim(a_bind(), NOW_MS) == InProgress(UNTIL_MS)
    assert await ledger.claim(a_bind(), NOW_MS + 1) == InProgress(UNTIL_MS)
    assert (await the_row(ledger, a_bind())).change == change


async def test_holder_of_a_shortened_lease_can_record_its_outcome(ledger: Ledger) -> None:
    token = await granted(ledger, a_bind(), AHEAD_MS)
    await ledger.claim(a_bind(), NOW_MS)
    assert await ledger.record(a_bind().key, token, APPLIED, NOW_MS)


async def test_request_is_sent_again_under_a_lease_that_was_shortened(ledger: Ledger) -> None:
    token = await granted(ledger, a_claim(), AHEAD_MS)
    await ledger.claim(a_claim(), NOW_MS)
    assert await ledger.renew(a_claim().key, token, LEASE_MS, NOW_MS)
    assert (await the_row(ledger, a_claim())).lease_until_ms == NOW_MS + LEASE_MS


@pytest.mark.parametrize("name", ["renew", "extend"])
async def test_other_request_of_the_linkage_overtakes_only_a_holder_with_an_expired_lease(
    ledger: Ledger, name: str
) -> None:
    """Only a clock that was set back makes a lease hold again."""
    token = await granted(ledger, a_claim())
    until_ms = NOW_MS + LEASE_MS
    await granted(ledger, a_claim("other"), until_ms)
    go_on = getattr(ledger, name)
    assert not await go_on(a_claim().key, token, LEASE_MS, until_ms)
    assert await go_on(a_claim().key, token, LEASE_MS, until_ms - 1)


@pytest.mark.parametrize("ending", [APPLIED, REJECTED, GATEWAY_REJECTED], ids=str)
async def test_outcome_recorded_after_the_clock_was_set_back_is_not_dropped_early(
    ledger: Ledger, ending: Ending
) -> None:
    token = await granted(ledger, a_bind(), AHEAD_MS)
    assert await ledger.record(a_bind().key, token, ending, NOW_MS)
    assert await ledger.drop(before_ms=AHEAD_MS, now_ms=AHEAD_MS) == 0
    assert await ledger.drop(before_ms=AHEAD_MS + 1, now_ms=AHEAD_MS) == 1


async def test_resolution_made_after_the_clock_was_set_back_is_not_dropped_early(ledger: Ledger) -> None:
    token = await granted(ledger, a_bind(), AHEAD_MS)
    assert await ledger.record(a_bind().key, token, Ending(State.IN_DOUBT, "U"), AHEAD_MS)
    assert await ledger.resolve(a_bind().key, Ending(State.APPLIED), who="ops", why="asked", now_ms=NOW_MS)
    row = await row_of(ledger, a_bind())
    assert row is not None
    assert row.resolved is not None
    assert (row.updated_ms, row.resolved.at_ms) == (AHEAD_MS, NOW_MS)
    assert await ledger.drop(before_ms=AHEAD_MS, now_ms=AHEAD_MS) == 0


async def test_outcome_written_while_the_clock_was_behind_is_kept_for_the_whole_retention(
    ledger: Ledger,
) -> None:
    month_ms = 31 * 24 * HOUR_MS
    right_ms = NOW_MS + month_ms
    assert await ledger.drop(before_ms=NOW_MS, now_ms=right_ms) == 0
    await ended(ledger, a_bind("behind"), now_ms=NOW_MS)
    await ended(ledger, a_bind("right"), now_ms=right_ms)
    later_ms = right_ms + HOUR_MS
    assert await ledger.drop(before_ms=later_ms - month_ms, now_ms=later_ms) == 0
    assert await ledger.drop(before_ms=later_ms, now_ms=later_ms + month_ms) == 0
    assert await ledger.drop(before_ms=later_ms + 1, now_ms=later_ms + month_ms) == 2


@pytest.mark.parametrize(
    ("wall_s", "since_boot_s", "wait_s", "holds"),
    [
        (9.0, 0.0, 0.995, True),
        (9.0, 0.0, 1.0, False),
        (0.0, 9.0, 0.995, True),
        (0.0, 9.0, 1.0, False),
    ],
)
def test_lease_holds_after_a_wait_only_by_both_clocks(
    wall_s: float, since_boot_s: float, wait_s: float, holds: bool
) -> None:
    clock = Clock(lambda: wall_s, lambda: since_boot_s)
    assert Lease(until_ms=10_000, send_by_s=10.0).holds(clock, wait_s) is holds


def test_lease_holds_without_a_wait_until_it_expires() -> None:
    lease = Clock(lambda: 1.0, lambda: 2.0).now().lease(5_000)
    assert lease == Lease(until_ms=6_000, send_by_s=7.0)
    assert lease.holds(Clock(lambda: 5.999, lambda: 6.999))


@pytest.mark.parametrize(
    ("wall_s", "since_boot_s", "is_late"),
    [
        (100.0, LEASE_MARGIN_S, False),
        (100.0, LEASE_MARGIN_S + 0.25, True),
        (100.0 - LEASE_MARGIN_S, 0.5, False),
        (100.0 - LEASE_MARGIN_S - 0.25, 0.5, True),
        (1e9, 0.5, False),
    ],
)
def test_lease_is_late_after_a_slow_ledger_or_a_clock_set_back(
    wall_s: float, since_boot_s: float, is_late: bool
) -> None:
    asked = Clock(lambda: 100.0, lambda: 8.0).now()
    assert Clock(lambda: wall_s, lambda: 8.0 + since_boot_s).is_late(asked) is is_late


async def test_grant_that_was_decided_is_not_written_if_the_lease_is_running_again(
    postgres_ledger: AtTestTime,
) -> None:
    """The database's clock is set back between the two calls of a claim in doubt."""
    ledger = postgres_ledger._ledger
    await granted(postgres_ledger, a_claim())
    asked = await postgres_ledger._at(NOW_MS + LEASE_MS)
    facts = await asked._ask(a_claim(), NOW_MS + LEASE_MS, writes=True)
    assert facts.answer(a_claim()) == Granted(0, was_in_doubt=True)
    await postgres_ledger._at(NOW_MS + 1)
    decided = facts.decided(was_in_doubt=True)
    again = await ledger._ask(a_claim(), NOW_MS + 1, writes=True, claim_id=b"2", decided=decided)
    assert (again.granted, again.answer(a_claim())) == (None, InProgress(NOW_MS + LEASE_MS))
    await postgres_ledger.close()
