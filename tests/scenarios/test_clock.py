"""A gateway with a wrong wall clock, from its start or changed while it runs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

import pytest
from grpc import StatusCode

from tests.clock import WallClock
from tests.e2e.caller import Reported, alarm, not_sent
from tests.e2e.conftest import Run
from tests.e2e.gateway import WAIT_MAX_S, Gateway, get
from tests.e2e.gateway import run as command
from tests.e2e.samples import BIND, SYNC, fresh_request
from tests.e2e.upstream import Upstream
from tests.e2e.wallet import Wallet
from tests.scenarios.conftest import QUICK
from tests.scenarios.system import IN_DOUBT, System, ledger_settings

MONTH_S: Final = 31 * 86_400
REPLAYED: Final = alarm("RESPONSE_REPLAYED")
STOPPED: Final = not_sent(StatusCode.UNAVAILABLE, "CIRCUIT_OPEN")
At = Callable[[float], AbstractAsyncContextManager[System]]


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    """Return the wall clock of this test's gateways."""
    return WallClock(tmp_path)


@pytest.fixture
def at(run: Run, upstream: Upstream, wallet: Wallet, clock: WallClock, tmp_path: Path) -> At:
    """Return a function that runs a gateway on the test's ledger with a clock some seconds ahead."""

    @asynccontextmanager
    async def started(ahead_s: float) -> AsyncIterator[System]:
        clock.set_ahead(ahead_s)
        settings = {**ledger_settings(tmp_path / "ledger.db"), **QUICK, "UPSTREAM_TIMEOUT_S": "4"}
        async with run(settings, environ=clock.environ) as gateway:
            yield System(gateway, upstream, wallet)

    return started


def skew_of(reported: Reported) -> int:
    return int(reported.metadata["clock_skew_s"])


async def metric(gateway: Gateway) -> float:
    _, text = await get(gateway.admin, "/metrics")
    return next(
        float(line.split()[1])
        for line in text.splitlines()
        if line.startswith("alipayhk_clock_skew_seconds")
    )


async def test_bind_account_stops_after_a_response_outside_the_window_until_the_clock_is_set(
    at: At, clock: WallClock
) -> None:
    ahead_s = -3600
    async with at(ahead_s) as system:
        first, second = BIND.request(), BIND.request()
        reported = await system.reported(BIND, first, REPLAYED)
        assert abs(skew_of(reported) + ahead_s) <= 2
        assert "not to this request" not in reported.status.message
        reported = await system.reported(BIND, second, STOPPED)
        assert abs(skew_of(reported) + ahead_s) <= 2
        assert (system.sent(first), system.sent(second)) == (1, 0)
        assert (await system.reported(BIND, first, IN_DOUBT)).info, "a known outcome is not reported"
        line = await system.gateway.logged(lambda record: record["event"] == "clock skew")
        assert (line["level"], abs(line["clock_skew_s"] + ahead_s) <= 2) == ("warning", True)
        status, text = await get(system.gateway.admin, "/readyz")
        assert (status, text.startswith("ok\nAlipayHK's clock is ")) == (200, True)
        assert abs(await metric(system.gateway) + ahead_s) <= 2
        clock.set_ahead(0)
        await system.ok(BIND, second)
        await system.gateway.logged(lambda record: record["event"] == "clock skew ended")
        assert await get(system.gateway.admin, "/readyz") == (200, "ok\n")


async def test_clock_a_month_ahead_drops_no_outcome(at: At) -> None:
    request = fresh_request(BIND)
    async with at(0) as system:
        await system.ok(BIND, request)
    async with at(MONTH_S) as system:
        await system.reported(BIND, BIND.request(), REPLAYED)
        await system.ok(BIND, request, replayed=True)
    async with at(0) as system:
        await system.ok(BIND, request, replayed=True)
        assert system.sent(request) == 1


async def test_old_outcome_is_dropped_only_after_a_response_of_alipayhk_confirms_the_time(
    at: At, tmp_path: Path
) -> None:
    request = fresh_request(BIND)
    async with at(0) as system:
        await system.ok(BIND, request)
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as connection:
        connection.execute("UPDATE request SET updated_ms = updated_ms - ?", (MONTH_S * 1000,))
        connection.execute("DELETE FROM clock_mark")
        # The row that a gateway would have written a month ago.
        connection.execute("INSERT INTO clock_mark SELECT max(updated_ms), token FROM request")
    async with at(0) as system:
        await asyncio.sleep(2)
        await system.ok(BIND, request, replayed=True)
        await system.ok(SYNC, fresh_request(SYNC))
        async with asyncio.timeout(WAIT_MAX_S):
            while await is_known(system, request):  # noqa: ASYNC110  (no event reports it)
                await asyncio.sleep(0.2)


async def is_known(system: System, request: Any) -> bool:
    shown = await command("ledger", "show", request.request_id, settings=system.gateway.settings)
    return shown.status == 0
