"""Requests for one linkage go one at a time, by their biz_time, and an older one never wins."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from grpc import StatusCode

from tests.e2e.caller import doubt, not_sent, rejected
from tests.e2e.samples import SYNC, at, new_id
from tests.e2e.upstream import Peer, Request, hangs
from tests.e2e.wallet import result
from tests.scenarios.scene import Scene, held

STALE = not_sent(StatusCode.FAILED_PRECONDITION, "STALE_BIZ_TIME", "never")
TIE = not_sent(StatusCode.FAILED_PRECONDITION, "BIZ_TIME_TIE", "new_request_id")
IN_FUTURE = not_sent(StatusCode.INVALID_ARGUMENT, "BIZ_TIME_IN_FUTURE", "new_request_id")
BUSY = not_sent(StatusCode.ABORTED, "LINKAGE_BUSY")
NOON = 1_716_350_000


class Member:
    """One linkage."""

    def __init__(self) -> None:
        self.identity = f"會員-{new_id()}"

    def at(self, seconds: float, **changes: Any) -> Any:
        """Return a request for it, so long after noon."""
        moment = at(NOON + int(seconds), round(seconds % 1 * 1e9))
        return SYNC.request(external_identity_value=self.identity, biz_time=moment, **changes)


@pytest.fixture
def member() -> Member:
    """Return a linkage that nobody has changed yet."""
    return Member()


async def test_older_than_what_was_applied_is_stale(scene: Scene, member: Member) -> None:
    await scene.ok(SYNC, member.at(10))
    for seconds in (9, 9.999, -1_000):
        older = member.at(seconds)
        await scene.reported(SYNC, older, STALE)
        assert scene.sent(older) == 0
    await scene.ok(SYNC, member.at(10.001))


async def test_equal_time_with_other_content_is_a_tie(scene: Scene, member: Member) -> None:
    await scene.ok(SYNC, member.at(10))
    other = member.at(10, external_binding_id="another")
    await scene.reported(SYNC, other, TIE)
    assert scene.sent(other) == 0


async def test_equal_time_and_content_under_a_new_id_is_sent(scene: Scene, member: Member) -> None:
    first, second = member.at(10), member.at(10)
    for request in (first, second):
        await scene.ok(SYNC, request)
        assert scene.sent(request) == 1


async def test_known_id_is_never_stale(scene: Scene, member: Member) -> None:
    old = member.at(10)
    await scene.ok(SYNC, old)
    await scene.ok(SYNC, member.at(20))
    await scene.ok(SYNC, old, replayed=True)


async def test_doubt_is_never_stale(scene: Scene, member: Member) -> None:
    old = member.at(10)
    scene.upstream.script = hangs
    timed_out = doubt("UPSTREAM_TIMEOUT", promised=True, code=StatusCode.DEADLINE_EXCEEDED)
    await scene.reported(SYNC, old, timed_out, timeout_s=0.4)
    scene.upstream.script = scene.wallet.says()
    await scene.ok(SYNC, member.at(20))  # a doubt does not block
    await scene.ok(SYNC, old)
    assert scene.sent(old) == 2


async def test_what_was_rejected_makes_nothing_stale(scene: Scene, member: Member) -> None:
    scene.upstream.script = scene.wallet.says(result("F", "USER_NOT_EXIST"))
    await scene.reported(SYNC, member.at(10), rejected(StatusCode.NOT_FOUND))
    scene.upstream.script = scene.wallet.says()
    await scene.ok(SYNC, member.at(5))


async def test_far_future_is_refused_and_its_id_is_not_spent(scene: Scene, member: Member) -> None:
    ahead = member.at(0)
    ahead.biz_time.FromSeconds(int(time.time()) + 400)
    reported = await scene.reported(SYNC, ahead, IN_FUTURE)
    assert reported.fields == ["biz_time"]
    ahead.biz_time.FromSeconds(int(time.time()))
    await scene.ok(SYNC, ahead)


async def test_other_linkages_are_not_concerned(scene: Scene, member: Member) -> None:
    await scene.ok(SYNC, member.at(10))
    for changes in (
        {"external_identity_value": "another"},
        {"user_id": "2160000000000777"},
        {"binding_target": "6222020000000777"},
    ):
        request = member.at(5)
        for name, value in changes.items():
            setattr(request, name, value + new_id() if name == "external_identity_value" else value)
        await scene.ok(SYNC, request)


async def test_one_at_a_time_and_in_order(scene: Scene, member: Member) -> None:
    """One is under way; those that come meanwhile follow it by their biz_time, without overlap."""
    now = most = 0
    order: list[bytes] = []

    async def watched(request: Request, peer: Peer) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        order.append(request.body)
        await asyncio.sleep(0.03)
        now -= 1
        await peer.send(scene.wallet.right(request).wire())

    requests = [member.at(seconds) for seconds in (1, 5, 3, 4, 2)]
    async with held(scene, SYNC, requests[0]) as first:
        others = []
        for request in requests[1:]:
            others.append(asyncio.create_task(scene.ok(SYNC, request)))
            await asyncio.sleep(0.05)
        assert len(scene.upstream.requests) == 1
        scene.upstream.script = watched
        await first.let_go()
        await asyncio.gather(*others)
    assert most == 1
    by_time = sorted(requests[1:], key=lambda request: request.biz_time.seconds)
    assert [request.request_id.encode() in body for request, body in zip(by_time, order, strict=True)] == [
        True
    ] * 4


async def test_waiting_that_takes_too_long_is_told(scene: Scene, member: Member) -> None:
    second = member.at(2)
    async with held(scene, SYNC, member.at(1)):
        await scene.reported(SYNC, second, BUSY, timeout_s=0.3)
    assert scene.sent(second) == 0
    await scene.ok(SYNC, second)


async def test_newer_one_is_applied_before_the_older_one_that_waits(scene: Scene, member: Member) -> None:
    """It came later and went first, where the older one was let through no more: that one is stale."""
    await scene.ok(SYNC, member.at(20))
    outcomes = await asyncio.gather(*(scene.call(SYNC, member.at(seconds)) for seconds in (30, 10, 25)))
    reasons = [
        getattr(reported, "info", reported).reason if hasattr(reported, "info") else "OK"
        for reported in outcomes
    ]
    assert reasons[0] == "OK"
    assert reasons[1] == "STALE_BIZ_TIME"
    assert reasons[2] in {"OK", "STALE_BIZ_TIME"}
