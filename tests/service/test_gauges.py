"""Gauges that jobs update, and those that are set once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from service.config.certificate_files import expiry_times
from service.config.files import PemFile
from service.credentials.server_certificate import ServerCertificate
from service.jobs import gauges
from service.jobs.gauges import Turn, running, show_in_doubt
from service.ledger import InDoubt, LedgerUnavailable
from service.ledger.lease import Clock
from service.ledger.memory import MemoryLedger
from service.telemetry.metrics import Metrics
from tests.certificates import Authority
from tests.ledger.levels import IN_DOUBT, NOW_MS, a_bind, a_claim, ended
from tests.service.fakes import LogStream
from tests.until import until

WAIT_S = 10.0
AT = Clock(lambda: NOW_MS / 1000 + 60)
"""A minute after most claims."""


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"alipayhk_{name}", labels)


class Counted(MemoryLedger):
    """Counts how often it is asked, and is unavailable the first time."""

    asked = 0

    async def in_doubt(self, now_ms: int) -> Sequence[InDoubt]:
        self.asked += 1
        if self.asked == 1:
            raise LedgerUnavailable("frozen")
        return await super().in_doubt(now_ms)


async def test_requests_in_doubt_are_shown_with_the_age_of_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gauges, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(gauges, "COUNT_EVERY_S", 0.02)
    metrics, ledger = Metrics(), Counted()
    async with running(show_in_doubt(ledger, metrics, Turn(None), AT)):
        await until(lambda: ledger.asked > 1, within_s=WAIT_S)
        assert sample(metrics, "ledger_in_doubt", api="BindAccount") == 0
        assert sample(metrics, "ledger_in_doubt_oldest_seconds") == 0
        await ended(ledger, a_bind("a"), IN_DOUBT, NOW_MS - 5_000)
        await ended(ledger, a_bind("b"), IN_DOUBT)
        await ended(ledger, a_claim("c"))
        await until(lambda: sample(metrics, "ledger_in_doubt", api="BindAccount") == 2, within_s=WAIT_S)
    assert sample(metrics, "ledger_in_doubt", api="SyncLinkage") == 0
    assert sample(metrics, "ledger_in_doubt_oldest_seconds") == 65


async def test_a_slow_ledger_is_counted_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Counted):
        async def in_doubt(self, now_ms: int) -> Sequence[InDoubt]:
            await asyncio.sleep(0.05)
            return await super().in_doubt(now_ms)

    monkeypatch.setattr(gauges, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(gauges, "COUNT_EVERY_S", 0.02)
    ledger = Slow()
    async with running(show_in_doubt(ledger, Metrics(), Turn(None))):
        await until(lambda: ledger.asked > 0, within_s=WAIT_S)
        await asyncio.sleep(0.5)
    assert ledger.asked == 1


async def test_a_job_that_fails_is_logged_and_does_not_stop_the_gateway(log_lines: LogStream) -> None:
    class Broken(MemoryLedger):
        async def in_doubt(self, now_ms: int) -> Sequence[InDoubt]:
            raise ZeroDivisionError

    async with running(show_in_doubt(Broken(), Metrics(), Turn(None))):
        await until(lambda: bool(log_lines.of("periodic job failed")), within_s=WAIT_S)
    (line,) = log_lines.of("periodic job failed")
    assert (line["level"], line["error_class"]) == ("error", "ZeroDivisionError")


def test_one_worker_counts_at_a_time(tmp_path: Path) -> None:
    first, second = Turn(tmp_path), Turn(tmp_path)
    assert [first.take(), second.take(), first.take(), second.take()] == [True, False, True, False]
    os.close(first._file or -1)  # as the system does when the worker exits
    assert second.take()


@pytest.mark.parametrize("directory", [None, Path("/nonexistent")])
def test_every_worker_counts_if_they_share_no_directory(directory: Path | None) -> None:
    assert all(turn.take() for turn in (Turn(directory), Turn(directory)))


def pem(*certificates: Any) -> bytes:
    return b"".join(certificate.chain for certificate in certificates)


def expiry(certificate: Any) -> float:
    return x509.load_pem_x509_certificate(certificate.chain).not_valid_after_utc.timestamp()


def test_expiry_is_that_of_the_first_certificate_that_is_missed(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    soon, late = (authority.issue(name, "x.internal", days=(-1, day)) for name, day in (("a", 3), ("b", 9)))
    served = ServerCertificate(pem(late, soon), b"", None)
    both = PemFile(tmp_path / "both.pem", pem(soon, late))
    assert expiry_times(served, None) == {"TLS_CERT_FILE": expiry(soon)}
    assert expiry_times(replace(served, client_ca=pem(late)), both) == {
        "TLS_CERT_FILE": expiry(soon),
        "TLS_CLIENT_CA_FILE": expiry(late),
        "UPSTREAM_CA_FILE": expiry(late),
    }
    assert expiry_times(None, replace(both, data=b"")) == {}


def test_expiry_is_shown_again_after_a_replacement() -> None:
    metrics, name = Metrics(), "certificate_expiry_timestamp_seconds"
    for time_s in (1.9e9, datetime(2031, 1, 1, tzinfo=UTC).timestamp()):
        metrics.set_certificate_expiry({"TLS_CERT_FILE": time_s})
        assert sample(metrics, name, file="TLS_CERT_FILE") == time_s
