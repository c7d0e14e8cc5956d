"""Requests for one linkage are sent one at a time, in the order of biz_time; older ones are refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc import StatusCode

from tests.e2e.caller import not_sent
from tests.e2e.samples import SYNC, at, new_id
from tests.e2e.upstream import Peer, Request
from tests.scenarios.system import System, held

STALE = not_sent(StatusCode.FAILED_PRECONDITION, "STALE_BIZ_TIME", "never")
NOON = 1_716_350_000


class Linkage:
    """One linkage."""

    def __init__(self) -> None:
        self.identity = f"會員-{new_id()}"

    def at(self, seconds: float, **changes: Any) -> Any:
        """Return a request for this linkage with a biz_time in seconds after noon."""
        moment = at(NOON + int(seconds), round(seconds % 1 * 1e9))
        return SYNC.request(external_identity_value=self.identity, biz_time=moment, **changes)


@pytest.fixture
def linkage() -> Linkage:
    """Return a linkage without earlier requests."""
    return Linkage()


async def test_request_older_than_the_applied_one_is_stale(system: System, linkage: Linkage) -> None:
    await system.ok(SYNC, linkage.at(10))
    for seconds in (9, 9.999, -1_000):
        older = linkage.at(seconds)
        await system.reported(SYNC, older, STALE)
        assert system.sent(older) == 0
    await system.ok(SYNC, linkage.at(10.001))


async def test_requests_for_one_linkage_are_sent_in_order(system: System, linkage: Linkage) -> None:
    """Requests that arrive while one is in progress follow it in the order of biz_time, without overlap."""
    in_progress = in_progress_max = 0
    order: list[bytes] = []

    async def watched(request: Request, peer: Peer) -> None:
        nonlocal in_progress, in_progress_max
        in_progress += 1
        in_progress_max = max(in_progress_max, in_progress)
        order.append(request.body)
        await asyncio.sleep(0.03)
        in_progress -= 1
        await peer.send(system.wallet.right(request).wire())

    applied, *requests = [linkage.at(seconds) for seconds in (0, 1, 5, 3, 4, 2)]
    await system.ok(SYNC, applied)
    async with held(system, SYNC, requests[0]) as first:
        others = []
        for count, request in enumerate(requests[1:], 2):
            others.append(asyncio.create_task(system.ok(SYNC, request)))
            await system.until_open(SYNC, count)
        # The ledger is read in the order of arrival, so a later replay returns when the others are queued.
        await system.ok(SYNC, applied, replayed=True)
        assert [system.sent(request) for request in requests] == [1, 0, 0, 0, 0]
        system.upstream.script = watched
        await first.release()
        await asyncio.gather(*others)
    assert in_progress_max == 1
    by_time = sorted(requests[1:], key=lambda request: request.biz_time.seconds)
    assert [request.request_id.encode() in body for request, body in zip(by_time, order, strict=True)] == [
        True
    ] * 4
