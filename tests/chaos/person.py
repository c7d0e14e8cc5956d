"""The person who asks AlipayHK about BindAccounts in doubt and resolves them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

from service.ledger import Ending, Key, Ledger, LedgerUnavailable, Row, State
from tests.chaos.history import BIND, LEASE_S, UPSTREAM_TIMEOUT_S, Resolution
from tests.chaos.world import World

LOOKS_EVERY_S: Final = 0.3
SLACK_S: Final = 0.3
ASKS_AFTER_S: Final = 2.0
"""How long a request is in doubt before the person asks."""


async def resolve_doubts(world: World, ledger: Ledger) -> None:
    """Resolve each request in doubt by AlipayHK's record of it, until cancelled.

    It uses the ledger as `alipayhk-gateway ledger` does, but in this process, because there are many.
    """
    first_seen: dict[Key, float] = {}
    while True:
        await asyncio.sleep(LOOKS_EVERY_S)
        with suppress(LedgerUnavailable):
            await _resolve_all(world, ledger, first_seen)


async def _resolve_all(world: World, ledger: Ledger, first_seen: dict[Key, float]) -> None:
    if time.monotonic() - world.clock.moved_at < LEASE_S + SLACK_S:
        return  # a lease can seem expired after a jump; people do not decide while clocks jump
    async for row in ledger.rows(in_doubt_at_ms=world.clock.now_ms()):
        # The last request may still be on its way to AlipayHK: on a busy machine the proxy reads it late.
        seen = first_seen.setdefault(row.key, time.monotonic())
        if row.key.api == BIND and time.monotonic() - seen > ASKS_AFTER_S:
            await _resolve(world, ledger, row)


async def _resolve(world: World, ledger: Ledger, row: Row) -> None:
    key = (row.key.api, row.key.request_id)
    arrivals = world.proxy.received[key]
    decided = all(arrival.status or arrival.answer == "lost" for arrival in arrivals)
    fresh = any(time.monotonic() - arrival.at < UPSTREAM_TIMEOUT_S for arrival in arrivals)
    if fresh or not decided:
        return
    applied = any(arrival.status == "S" for arrival in arrivals)
    state = State.APPLIED if applied else State.REJECTED
    ending = Ending(state, resolved_by_operator=True)
    now_ms = world.clock.now_ms()
    if await ledger.resolve(row.key, ending, who="chaos", why="asked AlipayHK", now_ms=now_ms):
        world.history.resolutions.append(Resolution(key, str(state), time.monotonic()))
