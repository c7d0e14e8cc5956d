"""The conformance suite: each level that records must pass it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from service.ledger import (
    Claim,
    ClaimRejected,
    Ending,
    Granted,
    InProgress,
    Key,
    Known,
    Ledger,
    LinkageBusy,
    Resolution,
    Reused,
    State,
)
from service.ledger.postgres import ledger as postgres_ledger
from service.ledger.sqlite import ledger as sqlite_ledger
from tests.ledger.levels import (
    APPLIED,
    FUTURE_MS,
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

LATER_MS = NOW_MS + LEASE_MS
"""The time at which a lease from NOW_MS has just expired."""


# -- known ids


async def test_new_id_is_granted_and_its_row_is_sending(ledger: Ledger) -> None:
    claim = a_claim()
    assert await ledger.claim(claim, NOW_MS) == Granted(1, was_in_doubt=False)
    row = await the_row(ledger, claim)
    assert (row.state, row.attempts, row.token) == (State.SENDING, 1, 1)
    assert (row.lease_until_ms, row.created_ms, row.updated_ms) == (LATER_MS, NOW_MS, NOW_MS)
    assert (row.caller, row.fingerprint, row.linkage) == ("loyalty", claim.fingerprint, claim.linkage)
    assert (row.biz_time_ms, row.ending, row.was_in_doubt, row.resolved) == (NOW_MS, None, False, None)


@pytest.mark.parametrize("ending", [APPLIED, REJECTED], ids=["applied", "rejected"])
async def test_final_outcome_is_replayed(ledger: Ledger, ending: Ending) -> None:
    await ended(ledger, a_claim(), ending)
    assert await ledger.claim(a_claim(), LATER_MS) == Known(ending)
    assert await ledger.claim(a_claim(caller="another"), LATER_MS) == Known(ending)
    assert (await the_row(ledger, a_claim())).attempts == 1


async def test_claimed_id_is_in_progress_until_its_lease_expires(ledger: Ledger) -> None:
    await granted(ledger, a_claim())
    assert await ledger.claim(a_claim(), LATER_MS - 1) == InProgress(LATER_MS)
    assert await ledger.claim(a_claim(), LATER_MS) == Granted(2, was_in_doubt=True)
    assert await ledger.claim(a_claim(), LATER_MS + LEASE_MS - 1) == InProgress(LATER_MS + LEASE_MS)


async def test_repeatable_id_in_doubt_is_granted_again(ledger: Ledger) -> None:
    await ended(ledger, a_claim(), IN_DOUBT)
    assert await ledger.claim(a_claim(), NOW_MS + 1) == Granted(2, was_in_doubt=True)
    row = await the_row(ledger, a_claim())
    assert (row.state, row.attempts, row.was_in_doubt, row.ending) == (State.SENDING, 2, True, IN_DOUBT)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "lease expired"])
async def test_id_in_doubt_that_must_not_repeat_is_rejected(ledger: Ledger, recorded: bool) -> None:
    token = await granted(ledger, a_bind())
    if recorded:
        assert await ledger.record(a_bind().key, token, IN_DOUBT, NOW_MS)
    assert await ledger.claim(a_bind(), LATER_MS) is ClaimRejected.IN_DOUBT
    assert (await the_row(ledger, a_bind())).attempts == 1


@pytest.mark.parametrize("ending", [None, APPLIED, REJECTED, IN_DOUBT, GATEWAY_REJECTED])
async def test_other_content_under_a_known_id_is_reused(ledger: Ledger, ending: Ending | None) -> None:
    await (granted(ledger, a_claim()) if ending is None else ended(ledger, a_claim(), ending))
    before = await the_row(ledger, a_claim())
    state = State.SENDING if ending is None else ending.state
    assert await ledger.claim(a_claim(fingerprint=b"other"), LATER_MS) == Reused(state)
    assert await ledger.look(a_claim(fingerprint=b"other"), LATER_MS) == Reused(state)
    assert await the_row(ledger, a_claim()) == before


@pytest.mark.parametrize(
    "key", [Key("client-2", "SyncLinkage", "id-1"), Key("client-1", "BindAccount", "id-1")]
)
async def test_id_is_unique_per_client_id_and_api(ledger: Ledger, key: Key) -> None:
    await ended(ledger, a_claim())
    assert await ledger.claim(a_claim(key=key, fingerprint=b"other"), NOW_MS) == Granted(
        2, was_in_doubt=False
    )
    assert {row.key for row in await ledger.find("id-1")} == {a_claim().key, key}


# -- the order of checks


async def test_known_id_is_never_stale_tied_or_in_the_future(ledger: Ledger) -> None:
    await ended(ledger, a_claim("old"), IN_DOUBT)
    await ended(ledger, a_claim("new", biz_time_ms=NOW_MS + 1))
    again = a_claim("old", biz_time_max_ms=0)
    assert await ledger.claim(again, NOW_MS) == Granted(3, was_in_doubt=True)


async def test_reuse_takes_precedence_over_the_future(ledger: Ledger) -> None:
    await ended(ledger, a_claim())
    reused = a_claim(fingerprint=b"other", biz_time_ms=FUTURE_MS + 1)
    assert await ledger.claim(reused, NOW_MS) == Reused(State.APPLIED)


@pytest.mark.parametrize(
    ("biz_time_ms", "refused"), [(FUTURE_MS, None), (FUTURE_MS + 1, ClaimRejected.IN_FUTURE)]
)
async def test_biz_time_can_be_ahead_up_to_a_limit(
    ledger: Ledger, biz_time_ms: int, refused: ClaimRejected | None
) -> None:
    answer = await ledger.claim(a_claim(biz_time_ms=biz_time_ms), NOW_MS)
    assert answer is refused if refused else isinstance(answer, Granted)
    assert (await row_of(ledger, a_claim()) is None) == (refused is not None)


async def test_future_takes_precedence_over_stale(ledger: Ledger) -> None:
    await ended(ledger, a_claim("new", biz_time_ms=NOW_MS + 10))
    assert await ledger.claim(a_claim("old", biz_time_max_ms=NOW_MS - 1), NOW_MS) is ClaimRejected.IN_FUTURE


async def test_stale_takes_precedence_over_busy(ledger: Ledger) -> None:
    await ended(ledger, a_claim("new", biz_time_ms=NOW_MS + 10))
    await granted(ledger, a_claim("newer", biz_time_ms=NOW_MS + 20))
    assert await ledger.claim(a_claim("old"), NOW_MS) is ClaimRejected.STALE


async def test_in_doubt_takes_precedence_over_busy(ledger: Ledger) -> None:
    await ended(ledger, a_claim("doubt", may_repeat=False), IN_DOUBT)
    await granted(ledger, a_claim("other"))
    assert await ledger.claim(a_claim("doubt", may_repeat=False), NOW_MS) is ClaimRejected.IN_DOUBT


# -- stale and tie


async def test_older_biz_time_than_one_applied_is_stale(ledger: Ledger) -> None:
    await ended(ledger, a_claim("new"))
    assert await ledger.claim(a_claim("old", biz_time_ms=NOW_MS - 1), NOW_MS) is ClaimRejected.STALE
    assert await row_of(ledger, a_claim("old")) is None


async def test_same_biz_time_is_a_tie_unless_the_content_is_the_same(ledger: Ledger) -> None:
    await ended(ledger, a_claim("first"))
    assert await ledger.claim(a_claim("other"), NOW_MS) is ClaimRejected.TIE
    same = a_claim("same", fingerprint=a_claim("first").fingerprint)
    assert isinstance(await ledger.claim(same, NOW_MS), Granted)


async def test_same_content_as_any_applied_request_is_no_tie(ledger: Ledger) -> None:
    tokens = {claim_id: await granted(ledger, a_claim(claim_id), NOW_MS) for claim_id in ("a",)}
    # The second request is claimed after the first one's lease has expired, so both are applied in the end.
    tokens["b"] = await granted(ledger, a_claim("b"), LATER_MS)
    for claim_id, token in tokens.items():
        assert await ledger.record(a_claim(claim_id).key, token, APPLIED, LATER_MS)
    for claim_id in tokens:
        same = a_claim(f"{claim_id}-again", fingerprint=a_claim(claim_id).fingerprint)
        assert await ledger.look(same, LATER_MS) == Granted(0, was_in_doubt=False)
    assert await ledger.look(a_claim("c"), LATER_MS) is ClaimRejected.TIE


@pytest.mark.parametrize("ending", [REJECTED, IN_DOUBT])
async def test_request_that_was_not_applied_makes_no_other_stale(ledger: Ledger, ending: Ending) -> None:
    await ended(ledger, a_claim("new"), ending)
    assert isinstance(await ledger.claim(a_claim("old", biz_time_ms=1), NOW_MS), Granted)


@pytest.mark.parametrize(
    "other",
    [
        {"linkage": b"linkage M"},
        {"key": Key("client-2", "SyncLinkage", "old")},
        {"key": Key("client-1", "AnotherApi", "old")},
    ],
    ids=["linkage", "client id", "api"],
)
@pytest.mark.parametrize("applied", [True, False], ids=["applied", "in progress"])
async def test_order_applies_within_one_linkage_client_id_and_api(
    ledger: Ledger, other: dict[str, object], applied: bool
) -> None:
    await (ended if applied else granted)(ledger, a_claim("new"))
    old = a_claim("old", biz_time_ms=1, **other)
    assert isinstance(await ledger.claim(old, NOW_MS), Granted)


async def test_requests_without_a_linkage_have_no_order(ledger: Ledger) -> None:
    await granted(ledger, a_bind("a"))
    await ended(ledger, a_bind("b"))
    assert isinstance(await ledger.claim(a_bind("c"), NOW_MS), Granted)


# -- one request of a linkage at a time


async def test_linkage_is_busy_until_the_lease_expires(ledger: Ledger) -> None:
    await granted(ledger, a_claim("first"))
    assert await ledger.claim(a_claim("second"), LATER_MS - 1) == LinkageBusy(LATER_MS)
    assert isinstance(await ledger.claim(a_claim("second"), LATER_MS), Granted)


@pytest.mark.parametrize("ending", [APPLIED, REJECTED, IN_DOUBT])
async def test_linkage_is_free_after_an_outcome_is_recorded(ledger: Ledger, ending: Ending) -> None:
    await ended(ledger, a_claim("first"), ending)
    second = a_claim("second", biz_time_ms=NOW_MS + 1)
    assert isinstance(await ledger.claim(second, NOW_MS), Granted)


async def test_request_in_doubt_waits_for_another_request_of_its_linkage(ledger: Ledger) -> None:
    await ended(ledger, a_claim("doubt"), IN_DOUBT)
    await granted(ledger, a_claim("other"))
    assert await ledger.claim(a_claim("doubt"), NOW_MS) == LinkageBusy(LATER_MS, was_in_doubt=True)


async def test_linkage_is_busy_until_its_longest_lease_expires(ledger: Ledger) -> None:
    first = await granted(ledger, a_claim("first"))
    second = a_claim("second", biz_time_ms=NOW_MS + 1)
    await granted(ledger, second, LATER_MS)
    # The first holder is too late: another request has the linkage now.
    assert not await ledger.renew(a_claim("first").key, first, 2 * LEASE_MS, LATER_MS)
    assert await ledger.look(a_claim("third"), LATER_MS) == LinkageBusy(LATER_MS + LEASE_MS)


# -- look


async def test_look_answers_as_claim_would_and_writes_nothing(ledger: Ledger) -> None:
    assert await ledger.look(a_claim(), NOW_MS) == Granted(0, was_in_doubt=False)
    assert await row_of(ledger, a_claim()) is None
    await ended(ledger, a_claim(), IN_DOUBT)
    before = await the_row(ledger, a_claim())
    assert await ledger.look(a_claim(), LATER_MS) == Granted(0, was_in_doubt=True)
    assert await ledger.look(a_claim(fingerprint=b"other"), LATER_MS) == Reused(State.IN_DOUBT)
    assert await the_row(ledger, a_claim()) == before


# -- leases and fencing


async def test_renew_counts_an_attempt_after_one_that_may_have_taken_effect(ledger: Ledger) -> None:
    token = await granted(ledger, a_claim())
    assert await ledger.renew(a_claim().key, token, LEASE_MS, NOW_MS + 100)
    row = await the_row(ledger, a_claim())
    assert (row.attempts, row.was_in_doubt, row.token) == (2, True, token)
    assert (row.lease_until_ms, row.updated_ms) == (LATER_MS + 100, NOW_MS + 100)


async def test_extend_gives_the_same_attempt_more_time(ledger: Ledger) -> None:
    token = await granted(ledger, a_claim())
    assert await ledger.extend(a_claim().key, token, LEASE_MS, NOW_MS + 100)
    row = await the_row(ledger, a_claim())
    assert (row.attempts, row.was_in_doubt, row.lease_until_ms) == (1, False, LATER_MS + 100)


@pytest.mark.parametrize("name", ["renew", "extend"])
async def test_holder_can_continue_after_its_lease_if_it_was_not_overtaken(
    ledger: Ledger, name: str
) -> None:
    token = await granted(ledger, a_claim())
    go_on = getattr(ledger, name)
    assert await go_on(a_claim().key, token, LEASE_MS, LATER_MS + 1)
    assert await ledger.claim(a_claim(), LATER_MS + 1) == InProgress(LATER_MS + 1 + LEASE_MS)


@pytest.mark.parametrize("name", ["renew", "extend"])
async def test_holder_cannot_continue_after_another_claim_took_its_linkage(
    ledger: Ledger, name: str
) -> None:
    token = await granted(ledger, a_claim())
    await granted(ledger, a_claim("other"), LATER_MS)
    go_on = getattr(ledger, name)
    assert not await go_on(a_claim().key, token, LEASE_MS, LATER_MS + 1)
    assert (await the_row(ledger, a_claim())).lease_until_ms == LATER_MS
    assert await go_on(a_claim().key, token, LEASE_MS, LATER_MS + LEASE_MS)


async def test_attempt_in_doubt_gets_no_more_time(ledger: Ledger) -> None:
    token = await ended(ledger, a_claim(), IN_DOUBT)
    assert not await ledger.extend(a_claim().key, token, LEASE_MS, NOW_MS + 100)
    assert (await the_row(ledger, a_claim())).state is State.IN_DOUBT


async def test_holder_in_doubt_cannot_renew_after_another_claim_took_its_linkage(ledger: Ledger) -> None:
    token = await ended(ledger, a_claim(), IN_DOUBT)
    await granted(ledger, a_claim("other"))
    assert not await ledger.renew(a_claim().key, token, LEASE_MS, LATER_MS - 1)
    assert await ledger.renew(a_claim().key, token, LEASE_MS, LATER_MS)


async def test_renew_after_a_recorded_doubt_is_sending_again(ledger: Ledger) -> None:
    token = await ended(ledger, a_claim(), IN_DOUBT)
    assert not await ledger.extend(a_claim().key, token, LEASE_MS, NOW_MS)
    assert await ledger.renew(a_claim().key, token, LEASE_MS, NOW_MS)
    row = await the_row(ledger, a_claim())
    assert (row.state, row.attempts, row.was_in_doubt) == (State.SENDING, 2, True)


WRITES: dict[str, Callable[[Ledger, Key, int], Awaitable[bool]]] = {
    "renew": lambda ledger, key, token: ledger.renew(key, token, LEASE_MS, LATER_MS),
    "extend": lambda ledger, key, token: ledger.extend(key, token, LEASE_MS, LATER_MS),
    "record": lambda ledger, key, token: ledger.record(key, token, REJECTED, LATER_MS),
    "undo": lambda ledger, key, token: ledger.undo(key, token, LATER_MS),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_overtaken_holder_cannot_write(
    ledger: Ledger, write: Callable[[Ledger, Key, int], Awaitable[bool]]
) -> None:
    key = a_claim().key
    old = await granted(ledger, a_claim())
    new = await granted(ledger, a_claim(), LATER_MS)
    before = await the_row(ledger, a_claim())
    assert new > old
    assert not await write(ledger, key, old)
    assert await the_row(ledger, a_claim()) == before
    assert await write(ledger, key, new)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_holder_of_an_undone_claim_cannot_write(
    ledger: Ledger, write: Callable[[Ledger, Key, int], Awaitable[bool]]
) -> None:
    key = a_claim().key
    old = await granted(ledger, a_claim())
    assert await ledger.undo(key, old, NOW_MS)
    assert not await write(ledger, key, old)
    assert await row_of(ledger, a_claim()) is None
    new = await granted(ledger, a_claim(fingerprint=b"corrected"), NOW_MS)
    assert new > old
    assert not await write(ledger, key, old)
    assert (await the_row(ledger, a_claim())).token == new


@pytest.mark.parametrize("name", ["renew", "extend", "undo"])
async def test_final_outcome_does_not_change(ledger: Ledger, name: str) -> None:
    token = await ended(ledger, a_claim())
    before = await the_row(ledger, a_claim())
    assert not await WRITES[name](ledger, a_claim().key, token)
    assert await the_row(ledger, a_claim()) == before


# -- record


async def test_recording_again_is_harmless_and_changes_nothing(ledger: Ledger) -> None:
    token = await ended(ledger, a_claim(), APPLIED)
    before = await the_row(ledger, a_claim())
    again = replace(APPLIED, sealed=b"sealed anew")
    assert await ledger.record(a_claim().key, token, again, LATER_MS)
    assert not await ledger.record(a_claim().key, token, REJECTED, LATER_MS)
    assert not await ledger.record(a_claim().key, token, IN_DOUBT, LATER_MS)
    assert await the_row(ledger, a_claim()) == before


async def test_late_outcome_replaces_a_recorded_doubt(ledger: Ledger) -> None:
    token = await granted(ledger, a_claim())
    assert await ledger.record(a_claim().key, token, IN_DOUBT, LATER_MS)
    assert await ledger.record(a_claim().key, token, APPLIED, LATER_MS + LEASE_MS)
    row = await the_row(ledger, a_claim())
    assert (row.state, row.ending, row.updated_ms) == (State.APPLIED, APPLIED, LATER_MS + LEASE_MS)


async def test_outcome_of_an_unknown_request_is_not_recorded(ledger: Ledger) -> None:
    assert not await ledger.record(a_claim().key, 1, APPLIED, NOW_MS)
    assert await row_of(ledger, a_claim()) is None


# -- undo


async def test_undone_id_can_be_claimed_with_corrected_content(ledger: Ledger) -> None:
    token = await granted(ledger, a_claim())
    assert await ledger.undo(a_claim().key, token, NOW_MS)
    assert await row_of(ledger, a_claim()) is None
    corrected = a_claim(fingerprint=b"corrected")
    assert await ledger.claim(corrected, NOW_MS) == Granted(token + 1, was_in_doubt=False)


async def test_undo_frees_the_linkage(ledger: Ledger) -> None:
    token = await granted(ledger, a_claim("first"))
    assert await ledger.undo(a_claim("first").key, token, NOW_MS)
    assert isinstance(await ledger.claim(a_claim("second"), NOW_MS), Granted)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "lease expired"])
async def test_undo_keeps_an_earlier_doubt(ledger: Ledger, recorded: bool) -> None:
    first = await granted(ledger, a_claim())
    if recorded:
        assert await ledger.record(a_claim().key, first, IN_DOUBT, NOW_MS)
    second = await granted(ledger, a_claim(), LATER_MS)
    assert await ledger.undo(a_claim().key, second, LATER_MS)
    row = await the_row(ledger, a_claim())
    assert (row.state, row.attempts) == (State.IN_DOUBT, 1)
    assert row.ending == (IN_DOUBT if recorded else None)
    assert await ledger.claim(a_claim(), LATER_MS) == Granted(second + 1, was_in_doubt=True)


async def test_undo_of_a_renewed_attempt_keeps_the_doubt_of_the_first(ledger: Ledger) -> None:
    token = await granted(ledger, a_claim())
    assert await ledger.renew(a_claim().key, token, LEASE_MS, NOW_MS)
    assert await ledger.undo(a_claim().key, token, NOW_MS)
    row = await the_row(ledger, a_claim())
    assert (row.state, row.attempts) == (State.IN_DOUBT, 1)


async def test_undo_of_an_extended_first_attempt_removes_the_row(ledger: Ledger) -> None:
    token = await granted(ledger, a_claim())
    assert await ledger.extend(a_claim().key, token, LEASE_MS, NOW_MS)
    assert await ledger.undo(a_claim().key, token, NOW_MS)
    assert await row_of(ledger, a_claim()) is None


# -- rejection of the gateway by AlipayHK


@pytest.mark.parametrize("claim", [a_claim(), a_bind()], ids=["repeatable", "not repeatable"])
async def test_gateway_rejected_id_is_granted_again_like_a_new_one(ledger: Ledger, claim: Claim) -> None:
    token = await granted(ledger, claim)
    assert await ledger.record(claim.key, token, GATEWAY_REJECTED, NOW_MS)
    row = await the_row(ledger, claim)
    assert (row.state, row.ending, row.is_in_doubt(FUTURE_MS)) == (
        State.GATEWAY_REJECTED,
        GATEWAY_REJECTED,
        False,
    )
    assert await ledger.look(claim, NOW_MS) == Granted(0, was_in_doubt=False)
    assert await ledger.claim(claim, NOW_MS) == Granted(token + 1, was_in_doubt=False)
    row = await the_row(ledger, claim)
    assert (row.state, row.attempts, row.was_in_doubt) == (State.SENDING, 2, False)
    assert await ledger.record(claim.key, token + 1, APPLIED, NOW_MS)
    assert await ledger.claim(claim, NOW_MS) == Known(APPLIED)


async def test_gateway_rejected_id_keeps_its_content(ledger: Ledger) -> None:
    """The content was sent, so other content must not be sent under the same id."""
    token = await granted(ledger, a_claim())
    assert await ledger.record(a_claim().key, token, GATEWAY_REJECTED, NOW_MS)
    corrected = a_claim(fingerprint=b"corrected")
    assert await ledger.claim(corrected, NOW_MS) == Reused(State.GATEWAY_REJECTED)
    again = await granted(ledger, a_claim())
    assert await ledger.claim(corrected, NOW_MS) == Reused(State.SENDING)
    assert await ledger.undo(a_claim().key, again, NOW_MS)
    row = await the_row(ledger, a_claim())
    assert (row.state, row.attempts, row.ending) == (State.GATEWAY_REJECTED, 1, GATEWAY_REJECTED)
    assert await ledger.claim(corrected, NOW_MS) == Reused(State.GATEWAY_REJECTED)


async def test_gateway_rejected_request_blocks_no_other_and_makes_none_stale(ledger: Ledger) -> None:
    token = await granted(ledger, a_claim("first", biz_time_ms=NOW_MS + 1))
    assert await ledger.record(a_claim("first").key, token, GATEWAY_REJECTED, NOW_MS)
    assert isinstance(await ledger.claim(a_claim("second"), NOW_MS), Granted)


async def test_gateway_rejected_request_that_is_sent_again_can_be_in_doubt(ledger: Ledger) -> None:
    token = await granted(ledger, a_bind())
    assert await ledger.record(a_bind().key, token, GATEWAY_REJECTED, NOW_MS)
    again = await granted(ledger, a_bind())
    assert (await the_row(ledger, a_bind())).ending == GATEWAY_REJECTED
    assert await ledger.renew(a_bind().key, again, LEASE_MS, NOW_MS)
    assert (await the_row(ledger, a_bind())).ending == replace(GATEWAY_REJECTED, state=State.IN_DOUBT)
    assert await ledger.claim(a_bind(), LATER_MS) is ClaimRejected.IN_DOUBT
    assert await ledger.record(a_bind().key, again, IN_DOUBT, LATER_MS)
    assert await ledger.claim(a_bind(), LATER_MS) is ClaimRejected.IN_DOUBT


async def test_gateway_rejected_request_is_dropped_like_a_final_one(ledger: Ledger) -> None:
    token = await granted(ledger, a_claim())
    assert await ledger.record(a_claim().key, token, GATEWAY_REJECTED, NOW_MS)
    assert await ledger.drop(before_ms=NOW_MS, now_ms=NOW_MS) == 0
    assert await ledger.drop(before_ms=NOW_MS + 1, now_ms=NOW_MS) == 1
    assert await row_of(ledger, a_claim()) is None


# -- resolve


@pytest.mark.parametrize("state", [State.APPLIED, State.REJECTED])
async def test_resolved_outcome_is_replayed_as_an_operators(ledger: Ledger, state: State) -> None:
    await ended(ledger, a_bind(), IN_DOUBT)
    assert await ledger.resolve(a_bind().key, Ending(state), who="ann", why="asked", now_ms=LATER_MS)
    resolved = Ending(state, resolved_by_operator=True)
    assert await ledger.claim(a_bind(), LATER_MS + 1) == Known(resolved)
    row = await the_row(ledger, a_bind())
    assert (row.state, row.ending, row.updated_ms) == (state, resolved, LATER_MS)
    assert row.resolved == Resolution("ann", "asked", LATER_MS)


async def test_operator_can_resolve_only_after_the_lease_has_expired(ledger: Ledger) -> None:
    key, token = a_bind().key, await granted(ledger, a_bind())
    ending = Ending(State.APPLIED)
    assert not await ledger.resolve(key, ending, who="ann", why="asked", now_ms=LATER_MS - 1)
    assert await ledger.resolve(key, ending, who="ann", why="asked", now_ms=LATER_MS)
    assert not await ledger.resolve(key, ending, who="ann", why="asked", now_ms=LATER_MS)
    # The claim's holder cannot overwrite the operator's decision.
    assert not await ledger.record(key, token, REJECTED, LATER_MS)
    assert not await ledger.renew(key, token, LEASE_MS, LATER_MS)


async def test_tokens_grow_by_one_with_claims_and_decisions(ledger: Ledger) -> None:
    await ended(ledger, a_bind("a"), IN_DOUBT)
    before = await granted(ledger, a_bind("b"))
    assert await ledger.resolve(
        a_bind("a").key, Ending(State.APPLIED), who="ann", why="asked", now_ms=LATER_MS
    )
    decided = (await the_row(ledger, a_bind("a"))).token
    assert (decided, await granted(ledger, a_bind("c"))) == (before + 1, before + 2)


async def test_extension_and_undo_have_their_time(ledger: Ledger) -> None:
    await ended(ledger, a_bind(), GATEWAY_REJECTED)
    token = await granted(ledger, a_bind())
    assert await ledger.extend(a_bind().key, token, LEASE_MS, NOW_MS + 1)
    assert (await the_row(ledger, a_bind())).updated_ms == NOW_MS + 1
    assert await ledger.undo(a_bind().key, token, NOW_MS + 2)
    assert (await the_row(ledger, a_bind())).updated_ms == NOW_MS + 2


@pytest.mark.parametrize("ending", [APPLIED, REJECTED])
async def test_operator_cannot_change_a_final_outcome(ledger: Ledger, ending: Ending) -> None:
    await ended(ledger, a_claim(), ending)
    before = await the_row(ledger, a_claim())
    assert not await ledger.resolve(
        a_claim().key, Ending(State.APPLIED), who="ann", why="asked", now_ms=LATER_MS
    )
    assert await the_row(ledger, a_claim()) == before


async def test_unknown_request_cannot_be_resolved(ledger: Ledger) -> None:
    ending = Ending(State.APPLIED)
    assert not await ledger.resolve(a_claim().key, ending, who="ann", why="asked", now_ms=NOW_MS)


async def test_request_resolved_as_applied_counts_in_the_order(ledger: Ledger) -> None:
    await ended(ledger, a_claim("new"), IN_DOUBT)
    assert await ledger.resolve(
        a_claim("new").key, Ending(State.APPLIED), who="ann", why="asked", now_ms=NOW_MS
    )
    assert await ledger.claim(a_claim("old", biz_time_ms=NOW_MS - 1), NOW_MS) is ClaimRejected.STALE


# -- rows and drop


async def ids(ledger: Ledger, **which: int) -> list[str]:
    return [row.key.request_id async for row in ledger.rows(**which)]


async def test_rows_since_a_time_are_in_the_order_of_their_changes(ledger: Ledger) -> None:
    a = await granted(ledger, a_bind("a"), NOW_MS + 1)
    await ended(ledger, a_bind("b"), IN_DOUBT, NOW_MS + 2)
    await ended(ledger, a_bind("c"), now_ms=NOW_MS + 3)
    await ended(ledger, a_bind("d"), REJECTED, NOW_MS + 4)
    assert await ids(ledger) == ["a", "b", "c", "d"]
    assert await ids(ledger, since_ms=NOW_MS + 1) == ["a", "b", "c", "d"]
    assert await ids(ledger, since_ms=NOW_MS + 2) == ["b", "c", "d"]
    assert await ids(ledger, since_ms=NOW_MS + 5) == []
    await ledger.record(a_bind("a").key, a, APPLIED, NOW_MS + 5)
    assert await ids(ledger, since_ms=NOW_MS + 2) == ["b", "c", "d", "a"]


async def test_rows_since_a_time_include_those_after_the_clock_was_set_back(
    ledger: Ledger,
) -> None:
    await ended(ledger, a_bind("before"), now_ms=NOW_MS - 1)
    await ended(ledger, a_bind("then"), now_ms=NOW_MS)
    await ended(ledger, a_bind("set back"), now_ms=NOW_MS - 600_000)
    token = await granted(ledger, a_bind("in flight"), NOW_MS - 600_000)
    await ledger.record(a_bind("in flight").key, token, IN_DOUBT, NOW_MS - 599_000)
    assert await ids(ledger, since_ms=NOW_MS) == ["then", "set back", "in flight"]


async def test_rows_after_a_change_are_all_later_changes(ledger: Ledger) -> None:
    token = await granted(ledger, a_bind("a"))
    await ended(ledger, a_bind("b"))
    *_, last = [row.change async for row in ledger.rows()]
    assert await ids(ledger, after=last) == []
    await ledger.record(a_bind("a").key, token, APPLIED, NOW_MS - 1)
    await granted(ledger, a_bind("c"), NOW_MS - 600_000)
    assert await ids(ledger, after=last) == ["a", "c"]


async def test_rows_since_a_time_and_after_a_change_are_later_than_both(ledger: Ledger) -> None:
    for number in range(3):
        await ended(ledger, a_bind(f"id-{number}"), now_ms=NOW_MS + number)
    changes = [row.change async for row in ledger.rows()]
    assert await ids(ledger, since_ms=NOW_MS + 1, after=changes[0]) == ["id-1", "id-2"]
    assert await ids(ledger, since_ms=NOW_MS + 1, after=changes[1]) == ["id-2"]
    assert await ids(ledger, since_ms=NOW_MS + 1, after=changes[2]) == []


async def test_rows_in_doubt_are_recorded_doubts_and_expired_leases(ledger: Ledger) -> None:
    await ended(ledger, a_bind("final"))
    await ended(ledger, a_bind("recorded"), IN_DOUBT, NOW_MS + 1)
    await granted(ledger, a_bind("over"), NOW_MS + 2)
    await granted(ledger, a_bind("alive"), NOW_MS + 3)
    assert await ids(ledger, in_doubt_at_ms=LATER_MS + 2) == ["recorded", "over"]


async def test_requests_in_doubt_are_counted_by_their_api(ledger: Ledger) -> None:
    assert await ledger.in_doubt(LATER_MS) == []
    await ended(ledger, a_bind("final"))
    await ended(ledger, a_bind("recorded"), IN_DOUBT, NOW_MS + 1)
    await granted(ledger, a_bind("over"), NOW_MS + 2)
    await granted(ledger, a_bind("alive"), NOW_MS + 3)
    await ended(ledger, a_claim("sync"), IN_DOUBT, NOW_MS + 4)
    counted = sorted(await ledger.in_doubt(LATER_MS + 2))
    assert counted == [("BindAccount", 2, NOW_MS + 1), ("SyncLinkage", 1, NOW_MS + 4)]
    (row,) = await ledger.find("recorded")
    assert await ledger.resolve(row.key, REJECTED, who="ann", why="asked", now_ms=LATER_MS)
    counted = sorted(await ledger.in_doubt(LATER_MS + 2))
    assert counted == [("BindAccount", 1, NOW_MS + 2), ("SyncLinkage", 1, NOW_MS + 4)]


async def test_a_database_counts_some_of_many_in_doubt_and_none_hides_another(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sqlite_ledger, postgres_ledger):
        monkeypatch.setattr(module, "COUNTED_MAX", 2)
    for number in range(5):
        await ended(ledger, a_claim(f"id-{number}", linkage=b"%d" % number), IN_DOUBT)
    await ended(ledger, a_bind(), IN_DOUBT)
    counted = sorted(await ledger.in_doubt(NOW_MS))
    of_sync = 2 if ledger.outlives_process else 5  # memory looks at all of them
    assert counted == [("BindAccount", 1, NOW_MS), ("SyncLinkage", of_sync, NOW_MS)]


async def test_every_row_is_yielded_once_across_pages(ledger: Ledger) -> None:
    claims = [a_bind(f"id-{number}") for number in range(1_203)]
    await asyncio.gather(*(ledger.claim(claim, NOW_MS) for claim in claims))
    await asyncio.gather(
        *(ledger.record(claim.key, token, APPLIED, NOW_MS) for token, claim in enumerate(claims[:700], 1))
    )
    assert sorted(await ids(ledger)) == sorted(claim.key.request_id for claim in claims)
    assert len(await ids(ledger, in_doubt_at_ms=LATER_MS)) == 503


async def test_only_old_final_rows_are_dropped(ledger: Ledger) -> None:
    await ended(ledger, a_bind("applied"))
    await ended(ledger, a_bind("rejected"), REJECTED)
    await ended(ledger, a_bind("doubt"), IN_DOUBT)
    await granted(ledger, a_bind("sending"))
    await ended(ledger, a_bind("young"), now_ms=NOW_MS + 1)
    assert await ledger.drop(before_ms=NOW_MS, now_ms=NOW_MS) == 0
    assert await ledger.drop(before_ms=NOW_MS + 1, now_ms=NOW_MS) == 2
    assert sorted(await ids(ledger)) == ["doubt", "sending", "young"]


async def test_dropped_id_is_new_again_and_makes_no_other_stale(ledger: Ledger) -> None:
    token = await ended(ledger, a_claim("new"))
    assert await ledger.drop(before_ms=NOW_MS + 1, now_ms=NOW_MS) == 1
    old = a_claim("old", biz_time_ms=1)
    assert await ledger.claim(old, NOW_MS) == Granted(token + 1, was_in_doubt=False)


async def test_one_call_drops_many_final_rows(ledger: Ledger) -> None:
    claims = [a_bind(f"id-{number}") for number in range(450)]
    await asyncio.gather(*(ended(ledger, claim) for claim in claims))
    assert await ledger.drop(before_ms=NOW_MS + 1, now_ms=NOW_MS) == 450
    assert await ids(ledger) == []


# -- concurrency


async def test_one_of_many_claims_of_one_id_is_granted(ledger: Ledger) -> None:
    answers = await asyncio.gather(*(ledger.claim(a_claim(), NOW_MS) for _ in range(64)))
    assert Counter(type(answer) for answer in answers) == {Granted: 1, InProgress: 63}


async def test_one_of_many_claims_of_one_linkage_is_granted(ledger: Ledger) -> None:
    claims = [a_claim(f"id-{number}") for number in range(64)]
    answers = await asyncio.gather(*(ledger.claim(claim, NOW_MS) for claim in claims))
    assert Counter(type(answer) for answer in answers) == {Granted: 1, LinkageBusy: 63}


async def test_every_grant_has_a_different_token(ledger: Ledger) -> None:
    claims = [a_claim(f"id-{number}", linkage=b"%d" % number) for number in range(300)]
    tokens = await asyncio.gather(*(granted(ledger, claim) for claim in claims))
    assert sorted(tokens) == list(range(1, 301))


async def test_concurrent_operations_each_get_their_own_answer(ledger: Ledger) -> None:
    claims = [a_claim(f"id-{number}", linkage=b"%d" % number) for number in range(60)]

    async def life(number: int, claim: Claim) -> State | None:
        token = await granted(ledger, claim)
        key = claim.key
        match number % 4:
            case 0:
                assert await ledger.record(key, token, APPLIED, NOW_MS)
            case 1:
                assert await ledger.undo(key, token, NOW_MS)
            case 2:
                assert await ledger.renew(key, token, LEASE_MS, NOW_MS)
                assert await ledger.record(key, token, IN_DOUBT, NOW_MS)
            case _:
                assert not await ledger.record(key, token + 1_000, APPLIED, NOW_MS)
                assert await ledger.look(claim, NOW_MS) == InProgress(LATER_MS)
        row = await row_of(ledger, claim)
        return row.state if row else None

    states = await asyncio.gather(*(life(number, claim) for number, claim in enumerate(claims)))
    assert states == [State.APPLIED, None, State.IN_DOUBT, State.SENDING] * 15
