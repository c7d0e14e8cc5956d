"""The level that records nothing."""

from __future__ import annotations

from service.ledger import ClaimRejected, Ending, Granted, State
from service.ledger.off import OffLedger
from tests.ledger.levels import APPLIED, FUTURE_MS, LEASE_MS, NOW_MS, a_claim


async def test_every_request_is_granted_as_new() -> None:
    ledger = OffLedger()
    for claim in (a_claim(), a_claim(), a_claim(fingerprint=b"other"), a_claim(biz_time_ms=0)):
        assert await ledger.look(claim, NOW_MS) == Granted(1, was_in_doubt=False)
        assert await ledger.claim(claim, NOW_MS) == Granted(1, was_in_doubt=False)
        assert await ledger.record(claim.key, 1, APPLIED, NOW_MS)


async def test_biz_time_in_the_future_is_refused() -> None:
    assert await OffLedger().claim(a_claim(biz_time_ms=FUTURE_MS + 1), NOW_MS) is ClaimRejected.IN_FUTURE


async def test_holder_is_never_fenced_off() -> None:
    ledger, key = OffLedger(), a_claim().key
    assert await ledger.renew(key, 1, LEASE_MS, NOW_MS)
    assert await ledger.extend(key, 1, LEASE_MS, NOW_MS)
    assert await ledger.undo(key, 1, NOW_MS)


async def test_there_are_no_rows_to_find_resolve_or_drop() -> None:
    ledger = OffLedger()
    await ledger.claim(a_claim(), NOW_MS)
    assert not await ledger.find("id-1")
    assert [row async for row in ledger.rows()] == []
    assert not await ledger.resolve(
        a_claim().key, Ending(State.APPLIED), who="ann", why="asked", now_ms=NOW_MS
    )
    assert await ledger.drop(before_ms=FUTURE_MS, now_ms=NOW_MS) == 0
    await ledger.close()
