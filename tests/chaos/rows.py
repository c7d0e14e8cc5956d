"""Compare the ledger's rows with what AlipayHK received and what callers got.

A snapshot is taken after the faults have paused for `SETTLED_S`: by then every process that runs has
recorded the results of its attempts, and only a process that was killed can have left a row open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from service.ledger import Key as LedgerKey
from service.ledger import Ledger, LedgerUnavailable, State
from tests.chaos.history import LEASE_S, UPSTREAM_TIMEOUT_S, ByRequest, Key, Row, Snapshot

if TYPE_CHECKING:
    from tests.chaos.world import World

PROBE_EVERY_S: Final = 0.1
STALL_S: Final = 0.25
"""A write that takes longer counts as a fault of the ledger."""
SETTLED_S: Final = LEASE_S + 3.0
"""How long faults pause before a snapshot: an attempt with its lease, and some rounds of pending writes."""
FINAL_STATES: Final = {"OK": State.APPLIED, "rejected": State.REJECTED}


async def rows_of(ledger: Ledger, now_ms: int) -> dict[Key, Row]:
    """Read every row of a ledger. Leases are read only of recent rows, which no clock fault has touched."""
    rows: dict[Key, Row] = {}
    async for row in ledger.rows():
        is_recent = 0 <= now_ms - row.updated_ms <= SETTLED_S * 1000
        lease_s = (row.lease_until_ms - row.updated_ms) / 1000 if is_recent else LEASE_S
        key = (row.key.api, row.key.request_id)
        is_overwritten = row.resolved is not None and bool(row.ending and row.ending.result_status)
        rows[key] = Row(row.state, row.attempts, row.is_in_doubt(now_ms), lease_s, is_overwritten)
    return rows


async def note_stalls(world: World, ledger: Ledger) -> None:
    """Record when the ledger cannot be written, because a stopped process holds its lock, for example."""
    nobody = LedgerKey("", "", "")
    while True:
        await asyncio.sleep(PROBE_EVERY_S)
        probe = asyncio.ensure_future(ledger.undo(nobody, token=0, now_ms=0))
        await asyncio.wait({probe}, timeout=STALL_S)
        if probe.done() and probe.exception() is None:
            continue
        with world.fault("stall", "the ledger cannot be written"), suppress(LedgerUnavailable):
            await probe


def misrecorded(by: ByRequest) -> Iterator[tuple[Key, str]]:
    """Find requests whose row is missing, false, or open without a reason."""
    snapshot = by.history.snapshot
    if snapshot is None:
        return
    for key in by.requests:
        row = snapshot.rows.get(key)
        text = _without_row(by, key, snapshot) if row is None else _false(by, key, row)
        if row is not None and row.is_in_doubt and not text:
            text = _open(by, key, row, snapshot)
        if text:
            yield key, text


def _without_row(by: ByRequest, key: Key, snapshot: Snapshot) -> str:
    sent = any(arrival.at < snapshot.at for arrival in by.arrivals(key))
    return "AlipayHK received it, but the ledger has no row" if sent else ""


def _false(by: ByRequest, key: Key, row: Row) -> str:
    applied = bool(by.applied(key))
    if row.state is State.APPLIED and not applied:
        return "the ledger has it as applied, but AlipayHK never applied it"
    if row.state is State.REJECTED and applied:
        return "the ledger has it as rejected, but AlipayHK applied it"
    if row.is_overwritten:
        return f"a person's decision was overwritten, and it is {row.state}"
    if row.state is State.SENDING and row.lease_s < UPSTREAM_TIMEOUT_S:
        return f"its lease of {row.lease_s:g} s is shorter than an attempt"
    return ""


def _open(by: ByRequest, key: Key, row: Row, snapshot: Snapshot) -> str:
    """Return why a row must not be in doubt; empty if it may be."""
    arrivals = [arrival for arrival in by.arrivals(key) if arrival.at < snapshot.at]
    final = by.first_final(key)
    if not arrivals or arrivals[-1].at > snapshot.at - SETTLED_S:
        return ""
    # With more attempts than arrivals, the last attempt is one that sent nothing, of an unknown process.
    holder = arrivals[-1].process if row.attempts <= len(arrivals) else 0
    if row.state is State.SENDING and holder in snapshot.processes:
        return f"its row is still {row.state}, although process {holder}, which sent it last, runs"
    if final is None or final.ended > snapshot.at - SETTLED_S or by.is_excused(key, final.ended):
        return ""
    # After a takeover, the first process reports AlipayHK's answer, and the second one can be killed.
    if len({arrival.process for arrival in arrivals}) > 1:
        return ""
    return f"{final.outcome} was reported, but its row is {row.state}"
