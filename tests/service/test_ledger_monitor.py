"""An outage of the ledger: one log line when it starts, one when it is over, and a gauge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from service.config.settings import Settings, read_settings
from service.delivery import ledger_monitor
from service.delivery.clock_skew import ClockSkew
from service.delivery.ledger_monitor import LedgerMonitor
from service.jobs import maintenance
from service.ledger import Claim, Ending, Key, Resolution, State
from service.ledger.memory import MemoryLedger
from service.telemetry.metrics import Metrics
from tests.ledger.trouble import locked, removed
from tests.service.fakes import LogStream

WAIT_S = 10.0
BAD, GOOD = "ledger unavailable", "ledger recovered"


def usable(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("alipayhk_ledger_usable")


def test_outage_is_logged_once_until_nothing_has_failed_for_a_while(log_lines: LogStream) -> None:
    metrics, now_s = Metrics(), [100.0]
    monitor = LedgerMonitor(MemoryLedger(), metrics, lambda: now_s[0])
    monitor.worked()
    assert (usable(metrics), log_lines.lines) == (1, [])
    for cause in ("SQLITE_FULL", "SQLITE_FULL", "SQLITE_IOERR"):
        monitor.failed(cause)
        now_s[0] += 9
        monitor.worked()
        assert usable(metrics) == 0
    now_s[0] += 1
    monitor.worked()
    assert usable(metrics) == 0
    now_s[0] += 1
    for _ in range(2):
        monitor.worked()
        assert usable(metrics) == 1
    lines = [(line["level"], line["event"], line.get("cause")) for line in log_lines.lines]
    assert lines == [("error", BAD, "SQLITE_FULL"), ("info", GOOD, None)]


@pytest.fixture
def settings(environ: dict[str, str], tmp_path: Path) -> Settings:
    return read_settings({**environ, "ALIPAYHK_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db"})


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [(removed, "the ledger's file cannot be reached: ENOENT"), (locked, "SQLITE_BUSY")],
)
async def test_outage_is_found_without_a_call(
    settings: Settings,
    tmp_path: Path,
    log_lines: LogStream,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[Path], AbstractContextManager[object]],
    cause: str,
) -> None:
    monkeypatch.setattr(maintenance, "FLUSH_EVERY_S", 0.01)
    monkeypatch.setattr(ledger_monitor, "QUIET_S", 0.1)
    metrics = Metrics()

    async def until(event: str) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            while not log_lines.of(event):  # noqa: ASYNC110  (a stream has nobody to wake us)
                await asyncio.sleep(0.01)
        (line,) = log_lines.of(event)
        return line

    async with maintenance.ledger_session(settings, metrics, ClockSkew(metrics)):
        await asyncio.sleep(0.1)
        assert (usable(metrics), log_lines.of(BAD)) == (1, [])
        with trouble(tmp_path / "ledger.db"):
            line = await until(BAD)
            assert line["level"] == "error"
            assert cause in line["cause"]
            assert usable(metrics) == 0
        await until(GOOD)
        assert usable(metrics) == 1


async def test_operators_get_what_the_ledger_behind_it_returns() -> None:
    ledger = MemoryLedger()
    monitor = LedgerMonitor(ledger, Metrics())
    one, other = (Claim(Key("C", "SyncLinkage", name), "caller", b"f", lease_ms=10) for name in "ab")
    for claim, now_ms in ((one, 0), (other, 5)):
        await monitor.claim(claim, now_ms)
    no = Ending(State.REJECTED)
    assert not await monitor.resolve(other.key, no, who="ann", why="asked", now_ms=14)
    assert await monitor.resolve(other.key, no, who="ann", why="asked", now_ms=15)
    (row,) = await monitor.find("b")
    assert row.resolved == Resolution("ann", "asked", 15)
    for selection in ({}, {"since_ms": 6}, {"after": row.change - 1}, {"in_doubt_at_ms": 20}):
        assert [row async for row in monitor.rows(**selection)] == [
            row async for row in ledger.rows(**selection)
        ]


async def test_large_log_is_reported_by_a_gauge_and_one_warning(log_lines: LogStream) -> None:
    class Grown(MemoryLedger):
        sizes: ClassVar = [4 << 20, 64 << 20, 65 << 20, 66 << 20, 8 << 20]

        @property
        def log_bytes(self) -> int:
            return self.sizes.pop(0)

    metrics = Metrics()
    monitor = LedgerMonitor(Grown(), metrics)
    for _ in range(5):
        await monitor.probe()
    assert metrics.registry.get_sample_value("alipayhk_ledger_log_bytes") == 8 << 20
    lines = [(line["event"], line["count"]) for line in log_lines.lines]
    assert lines == [
        ("write-ahead log of the ledger too large", 65 << 20),
        ("write-ahead log of the ledger reused", 8 << 20),
    ]
