"""One of two replicas is restarted under load: every call that it has accepted gets its result."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

from tests.e2e.upstream import Peer, Request, Upstream
from tests.scenarios.conftest import RunReplicas
from tests.scenarios.replica_load import NOT_ACCEPTED, PATIENT_S, UNHEARD, Load, Made
from tests.scenarios.system import System

ANSWERS_AFTER_S: Final = 0.3
"""Some calls are in flight when the replica is stopped."""


class Moving(Load):
    """Repeats a call that a replica did not accept at another one, as callers with shared_ledger do."""

    spare: System
    moved: list[Made]

    async def _call(self, made: Made) -> None:
        await super()._call(made)
        if made.reason in NOT_ACCEPTED:
            at_first = Made(made.system, made.api, made.request, made.started, made.took_s, made.result)
            self.moved.append(at_first)
            made.result = await self.spare.served(made.api, made.request)


async def test_no_accepted_call_fails(
    run_replicas: RunReplicas, postgres_url: str, upstream: Upstream
) -> None:
    async with AsyncExitStack() as stack:
        first, other = await stack.enter_async_context(run_replicas(postgres_url, UPSTREAM_TIMEOUT_S="8"))

        async def slow(request: Request, peer: Peer) -> None:
            await asyncio.sleep(ANSWERS_AFTER_S)
            await peer.send(other.wallet.right(request).wire())

        upstream.script, load = slow, Moving([first, other], PATIENT_S)
        load.spare, load.moved = other, []
        await stack.enter_async_context(load.running())
        await load.until_ok()
        first.gateway.terminate()
        assert await first.gateway.ended() == 0
        async with run_replicas(postgres_url, "a") as (again,):
            load.systems[0] = again
            await load.until_ok()
            load.systems.remove(again)
            await load.until_ended()
    load.check()
    assert load.reasons().keys() == {"OK"}
    assert set(load.received().values()) == {1}
    assert load.moved
    for made in load.moved:
        records = made.system.gateway.call_records(made.request.request_id)
        assert made.reason not in UNHEARD or not records, made
